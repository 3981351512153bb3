"""Streams as bytes, and servers on loopback that send them as they are told: they die, stall and come back."""

import socket
import threading
import time
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np

DARK, BRIGHT = 40, 210


class _Bytes:
    def __init__(self):
        self.content = bytearray()

    def write(self, data):
        self.content += data
        return len(data)


def stream(levels, *, start=0.0, rate=25, size=(48, 64), kind="mpegts", pts=None):
    """Frames of one brightness each as a transport stream (or another kind that needs no seeks).

    ``pts``: their times in units of 1/90,000 s, in place of a constant rate.
    """
    made = _Bytes()
    with av.open(made, "w", format=kind) as container:
        codec = "mpeg2video" if pts is None else "libx264"  # the first is quicker, but has few time bases
        track = container.add_stream(codec, rate=rate, options={"g": "5", "bf": "0"})
        track.height, track.width = size
        track.codec_context.time_base = Fraction(1, 90000) if pts is not None else Fraction(1, rate)
        for number, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level, np.uint8), format="rgb24")
            frame.time_base = Fraction(1, 90000)
            frame.pts = round(90000 * (start + number / rate)) if pts is None else pts[number]
            for packet in track.encode(frame):
                container.mux(packet)
        for packet in track.encode():
            container.mux(packet)
    return bytes(made.content)


class Stall:
    """In a script: no data, until the server stops."""


@contextmanager
def http_server(*script):
    """``script``: for each connection what it sends: bytes, ``Stall``, or a status such as 503; a list of them; then
    404. ``("length", bytes)`` states its length.

    Yields (address, the list of requests).
    """
    waiting, asked, over = list(script), [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            steps = waiting.pop(0) if waiting else 404
            steps = steps if isinstance(steps, list) else [steps]
            status = steps[0] if isinstance(steps[0], int) else 200
            self.send_response(status)
            self.send_header("Content-Type", "video/mp2t")
            if isinstance(steps[0], tuple):
                self.send_header("Content-Length", str(len(steps[0][1])))
                steps = [steps[0][1]]
            self.end_headers()
            for step in steps:
                if isinstance(step, bytes):
                    self.wfile.write(step)
                elif step is Stall:
                    over.wait(20)
            self.close_connection = True

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def send_udp(port, content, pause=0.0005):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for start in range(0, len(content), 1316):
            one.sendto(content[start : start + 1316], ("127.0.0.1", port))
            time.sleep(pause)
