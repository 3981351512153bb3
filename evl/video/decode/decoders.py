"""Which decoder of libav decodes a stream: one that reports what is broken, where several give the same pictures."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import lru_cache

import av
from av.sidedata.sidedata import Type

from evl.video.decode.packets import vp9_sizes

# FFmpeg's own decoder of VP9 makes pictures of most broken packets; libvpx refuses them, at the same speed
BETTER = {"vp9": "libvpx-vp9"}
EIGHT_BITS = frozenset(("yuv420p", "yuv422p", "yuv440p", "yuv444p", "gbrp"))  # PyAV's libvpx decodes no others
MAX_PIXELS = 2**25  # a little more than 8K, 7680 × 4320; pictures that claim more are refused
HEAD = 1 << 16  # bytes in which Matroska's description of the streams usually lies
CLUSTER, PROJECTION = bytes.fromhex("1f43b675"), bytes.fromhex("7670")


def decoder_of(
    container: av.container.InputContainer, stream: av.VideoStream, first: av.Packet | None = None
) -> av.VideoCodecContext:
    """The decoder for the packets of a stream: its own, or a better one. ``first``: the first packet of a stream that
    is not the plain file that ``open_video`` opened."""
    own = stream.codec_context
    name = BETTER.get(own.name)
    if name is None or own.pix_fmt not in EIGHT_BITS:
        return own
    if _may_be_turned(container, stream) if first is None else _is_turned(own, first):
        return own
    try:
        return like(own, name)
    except ValueError:  # this build of FFmpeg does not have it
        return own


def like(decoder: av.VideoCodecContext, name: str) -> av.VideoCodecContext:
    """A new decoder for the same packets. Raises ValueError if there is none of that name."""
    new = av.CodecContext.create(name, "r")
    new.options, new.thread_count = decoder.options, decoder.thread_count
    if decoder.extradata:
        new.extradata = decoder.extradata
    return new


def decode_packet(decoder: av.VideoCodecContext, packet: av.Packet) -> list[av.VideoFrame]:
    """The frames that a decoder returns for a packet. Raises libav's errors."""
    if decoder.name in BETTER.values() and packet.size:  # it has no limit of its own, as FFmpeg's decoders have
        for width, height in vp9_sizes(bytes(packet)):
            if width * height > MAX_PIXELS:
                raise av.error.InvalidDataError(errno.EINVAL, f"a packet claims {width}×{height} pixels")
    return decoder.decode(packet)


def marks_keys(decoder: av.VideoCodecContext) -> bool:
    """Whether a decoder says of its frames which are key frames."""
    return decoder.name not in BETTER.values()


def _may_be_turned(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether the container has a display matrix: only a stream's own decoder attaches it to the frames."""
    path = container.name.removeprefix("file:")
    info = os.stat(path)
    return _has_matrix(path, info.st_size, info.st_mtime_ns, stream.index, container.format.name == "matroska,webm")


def _is_turned(own: av.VideoCodecContext, packet: av.Packet) -> bool:
    with suppress(av.error.FFmpegError):
        return any(Type.DISPLAYMATRIX in frame.side_data for frame in own.decode(packet))
    return False


@lru_cache(maxsize=65536)
def _has_matrix(path: str, size: int, mtime_ns: int, number: int, is_matroska: bool) -> bool:
    if is_matroska:
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if PROJECTION not in head[: head.find(CLUSTER)] and CLUSTER in head:
            return False
    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="ignore") as container:
        for frame in container.decode(container.streams[number]):
            return Type.DISPLAYMATRIX in frame.side_data
    return False
