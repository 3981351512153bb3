"""Opens a source with PyAV and gives its frames, each with its time. What goes wrong becomes a VideoError."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import av
import numpy as np

from evl.errors import VideoError
from evl.video.decode.container import FORMATS, MAX_PIXELS, STRICT, demux, open_video, refuse_truncated, video_streams
from evl.video.decode.live_frames import LiveFrames
from evl.video.decode.orientation import Orientations
from evl.video.decode.rgb import ToRGB, pixel_shape
from evl.watching.address import Address
from evl.watching.bytes import GrowingFile, Pipe

STANDS_STILL = 25  # frames with one time, after which frames are counted
MOST_DAMAGED = 250  # frames in a row that are damaged, after which a source is broken
# what an address may lead to: a playlist from the network opens no file of this machine
PROTOCOLS = {
    "http": "http,https,tcp,tls,crypto,data,httpproxy",
    "https": "http,https,tcp,tls,crypto,data,httpproxy",
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https",
    "rtmp": "rtmp,tcp",
}
LIVE_FORMATS = f"{FORMATS},hls,rtsp,mpjpeg,mjpeg,rtp,sdp"


@dataclass(frozen=True)
class Settings:
    """``timeout``: seconds without data or pictures after which a source is broken. ``square_pixels``: as the model's
    preprocessing wants it."""

    timeout: float = 10.0
    square_pixels: bool = False


@dataclass(frozen=True)
class Source:
    """A source that is open. ``is_finite``: it has an end that is known. ``was_replaced()``: of a file that grows."""

    container: av.container.InputContainer
    stream: av.VideoStream
    is_finite: bool = False
    was_replaced: Callable[[], bool] = lambda: False


@contextmanager
def open_source(
    address: Address, settings: Settings, stop: threading.Event, say: Callable[[str], None]
) -> Iterator[Source]:
    """Raises VideoError, also from within the block, with a text that has no password in it."""
    if address.kind == "file":
        with open_video(address.name, one_thread=True) as (container, stream):
            refuse_truncated(address.name, stream)
            yield Source(container, stream, is_finite=True)
        return
    try:
        with ExitStack() as stack:
            source = _open(address, settings, stop, say, stack)
            context = source.stream.codec_context
            context.options = {"max_pixels": str(MAX_PIXELS)} | STRICT.get(context.name, {})
            context.thread_count = 1  # several hold frames back, or do not report what is broken in their part of one
            yield source
    except av.error.FFmpegError as error:
        raise VideoError(address.shown, _reason(error, settings)) from None
    except OSError as error:
        raise VideoError(address.shown, (error.strerror or type(error).__name__).lower()) from None


def _open(address: Address, settings: Settings, stop, say, stack: ExitStack) -> Source:
    timeout = (settings.timeout, settings.timeout)
    was_replaced = Source.was_replaced
    if address.kind == "camera":
        container = av.open(address.name, format="v4l2", timeout=timeout)
    elif address.kind == "network":
        options = {"protocol_whitelist": PROTOCOLS.get(address.scheme, address.scheme)}
        options["format_whitelist"] = LIVE_FORMATS
        if address.scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        container = av.open(address.name, options=options, timeout=timeout, metadata_errors="ignore")
    else:
        if address.kind == "pipe":
            silent = "no data for {:.0f} s; the pipe is still open"
            file = Pipe(address.name, settings.timeout, stop, lambda seconds: say(silent.format(seconds)))
        else:
            file = GrowingFile(address.name, settings.timeout, stop)
            was_replaced = lambda: file.is_replaced  # noqa: E731
        stack.callback(file.close)
        options = {"protocol_whitelist": "", "format_whitelist": FORMATS}
        container = av.open(_Reads(file), options=options, metadata_errors="ignore")
    stack.enter_context(container)
    streams = [stream for stream in video_streams(container) if stream.codec_context is not None]
    if not streams:
        raise VideoError(address.shown, "has no video that this build of FFmpeg can decode")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    states_length = address.scheme in ("http", "https") and container.size > 0
    return Source(container, stream, states_length or not address.comes_back, was_replaced)


class _Reads:
    """Only ``read``, so that PyAV does not try to seek, and does not close what it did not open."""

    def __init__(self, file: GrowingFile | Pipe):
        self.name, self.read = "", file.read


def _reason(error: av.error.FFmpegError, settings: Settings) -> str:
    if isinstance(error, av.error.ExitError):  # PyAV's timeout
        return f"no data for {settings.timeout:g} s"
    if isinstance(error, av.error.EOFError):
        return "ends before a picture"
    if error.errno == errno.EIO:
        return "the connection broke"
    return (error.strerror or type(error).__name__).lower()  # its text has the address, with the password


@dataclass(frozen=True)
class Picture:
    """A frame of a source. ``time_seconds``: by the clock of the source. ``rgb()`` is (H,W,3) uint8, upright.
    ``left_out``: how many were damaged between the frame before it and this one."""

    time_seconds: float
    rgb: Callable[[], np.ndarray]
    size: tuple[int, int]  # height, width, as stored
    left_out: int = 0


def pictures(
    source: Source, name: str, settings: Settings, on_damaged: Callable[[int], None], stop: threading.Event
) -> Iterator[Picture]:
    """The frames of an open source, until it ends or ``stop`` is set. Raises VideoError, and libav's errors.

    Frames that are damaged, or that come after damaged ones (``LiveFrames``), are left out; ``on_damaged(n)`` is called
    with their number.
    """
    clock, orientations = FrameClock(source.stream), Orientations(name)
    to_rgb = ToRGB(pixel_shape(source.stream) if settings.square_pixels else None)
    known: set[tuple] = set()
    unit = float(source.stream.time_base or 1)
    live = LiveFrames(source.container, source.stream)
    before: int | None = None  # frames that were left out before the newest frame
    for frame in _frames(source, live, name, settings, on_damaged, stop):
        shown = orientations.of(frame)

        def rgb(frame: av.VideoFrame = frame, shown=shown) -> np.ndarray:
            return shown.apply(to_rgb(frame))

        kind = (frame.width, frame.height, frame.format.name, frame.color_trc)
        if kind not in known:  # what cannot be converted breaks here, and not between the frames of other sources
            rgb()
            known = {kind}
        time_seconds = None if frame.pts is None else frame.pts * unit  # the last frames have no ``time`` of their own
        left_out = 0 if before is None else live.left_out - before
        before = live.left_out
        yield Picture(clock.seconds(time_seconds), rgb, (frame.height, frame.width), left_out)


def _frames(source: Source, live: LiveFrames, name, settings: Settings, on_damaged, stop) -> Iterator[av.VideoFrame]:
    """All streams are read, because one that is no longer sent would else be waited for without end."""
    number, told, in_a_row, latest = source.stream.index, 0, 0, time.monotonic()
    broken: list[av.error.FFmpegError] = []
    for packet in _packets(source, broken):
        if stop.is_set():
            return
        if packet.stream is None or packet.stream.index != number or not packet.size:
            if time.monotonic() - latest > settings.timeout and not source.is_finite:
                raise VideoError(name, f"no pictures for {settings.timeout:g} s")
            continue
        for frame in live.decode(packet):
            yield frame
            in_a_row, latest = 0, time.monotonic()
        on_damaged(live.left_out - told)
        in_a_row, told = in_a_row + live.left_out - told, live.left_out
        if in_a_row > MOST_DAMAGED and not source.is_finite:
            raise VideoError(name, f"{in_a_row} frames in a row are damaged")
    yield from live.end()
    on_damaged(live.left_out - told)
    if broken:
        raise broken[0]


def _packets(source: Source, broken: list[av.error.FFmpegError]) -> Iterator[av.Packet]:
    """The packets until the source ends or breaks; what it broke by is added to ``broken``."""
    try:
        yield from demux(source.container)
    except av.error.FFmpegError as error:
        broken.append(error)


class FrameClock:
    """The times of frames. Frames without a time, or with one time for 25 frames, are counted at the stream's rate."""

    def __init__(self, stream: av.VideoStream):
        self.step = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self._given: float | None = None
        self._now: float | None = None
        self._same = 0

    def seconds(self, time_seconds: float | None) -> float:
        is_same = time_seconds is None or time_seconds == self._given
        self._same = self._same + 1 if is_same else 0
        self._given = time_seconds if time_seconds is not None else self._given
        if time_seconds is None or self._same >= STANDS_STILL:
            self._now = 0.0 if self._now is None else self._now + self.step
        else:
            self._now = time_seconds
        return self._now
