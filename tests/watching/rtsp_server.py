"""An RTSP server by GStreamer on loopback, run by the system's Python, which has its bindings:

    /usr/bin/python3 tests/watching/rtsp_server.py PORT WIDTH HEIGHT

Dark and bright take turns, two seconds each, at 25 frames per second, for user ann with the password secret.
"""

import sys

import gi

gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, width, height = sys.argv[1:]
Gst.init(None)
caps = f"video/x-raw,width={width},height={height},framerate=25/1"
parts = [f"videotestsrc pattern={name} num-buffers=50 ! {caps} ! queue ! c." for name in ("black", "white") * 10]
encoded = "x264enc tune=zerolatency key-int-max=5 speed-preset=ultrafast ! rtph264pay name=pay0 pt=96"
factory, access, auth = GstRtspServer.RTSPMediaFactory(), GstRtspServer.RTSPPermissions(), GstRtspServer.RTSPAuth()
factory.set_launch(f"( concat name=c ! identity sync=true ! {encoded} {' '.join(parts)} )")
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
access.add_role("user")
for name in ("access", "construct"):
    access.add_permission_for_role("user", f"media.factory.{name}", True)
factory.set_permissions(access)
auth.add_basic(auth.make_basic("ann", "secret"), token)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
server.set_auth(auth)
server.get_mount_points().add_factory("/1", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
