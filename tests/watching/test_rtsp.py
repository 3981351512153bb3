"""A real RTSP server that dies, comes back with another size, and stalls.

It needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi and gstreamer1.0-plugins-base, -good and -ugly.
"""

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.watching.servers import free_port
from tests.watching.test_sources import events_of, states

SERVER = Path(__file__).with_name("rtsp_server.py")


@pytest.fixture
def served():
    """``served(port, width, height)`` starts a server and waits until it answers; None where GStreamer is missing."""
    running = []

    def start(*arguments):
        command = ["/usr/bin/python3", str(SERVER), *map(str, arguments)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return running[-1] if running[-1].stdout.readline() == "ready\n" else None

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python of the system")
def test_a_camera_that_dies_stalls_and_comes_back(watched, served):
    port = free_port(socket.SOCK_STREAM)
    server = served(port, 128, 96)
    if server is None:
        pytest.skip("no RTSP server of GStreamer here")
    watch = watched([f"rtsp://ann:secret@127.0.0.1:{port}/1"], timeout=2.0)
    step, stalled = "first", None

    def act(event):
        nonlocal step, stalled
        if step == "first" and event.kind == "begin" and event.label == "bright":
            server.kill()
            step = "dead"
        elif step == "dead" and event.state == "lost" and "refused" in event.text:
            step, stalled = "again", served(port, 160, 128)
        elif step == "again" and event.kind == "begin" and event.label == "bright":
            stalled.send_signal(signal.SIGSTOP)
            step = "stalls"
        elif step == "stalls" and event.state == "lost":
            stalled.send_signal(signal.SIGCONT)
            step = "goes on"
        return step == "goes on" and event.kind == "begin" and event.label == "bright"

    events = events_of(watch, until=act, seconds=90)
    assert step == "goes on"
    said = [state for n, state in enumerate(states(events)) if n == 0 or state != states(events)[n - 1]]
    assert said == ["connected", "lost", "connected", "changed", "lost", "connected"]
    assert any(event.text.startswith("no data for 2 s") for event in events if event.state == "lost")
    begun = [event.label for event in events if event.kind == "begin"]
    assert begun == ["dark", "bright"] * 3
    seconds = [event.seconds for event in events if event.kind == "begin"]
    assert seconds == sorted(seconds)
    assert "secret" not in "".join(str(event.document()) for event in events)
    assert watch.totals().frames_left_out == watch.totals().damaged == 0
