"""Opening files that nobody vouches for: nothing in them is believed, and all that goes wrong becomes a VideoError."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import av
import torch

from evl.errors import VideoError
from evl.video.decode.truncation import refuse_truncated as refuse_cut_pieces

# FFmpeg's names of formats that hold a video in one file: no playlists (which name other files), no still pictures
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,m4v,h264,hevc,av1,obu,ivf,nut,"
    "mxf,dv,rm,wtv,swf,vc1,3gp,mp3,aac,wav,flac,ac3"
)
MAX_PIXELS = 2**25  # a little more than 8K, 7680 × 4320; a header that claims more is taken for a lie
MAX_SIDE = 2**14
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)  # pathlib makes one slash of two
COVERS = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
ADDITIONS = av.stream.Disposition.still_image | av.stream.Disposition.dependent  # stills; layers upon another stream


@contextmanager
def open_video(path: str, *, one_thread: bool = False) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Container and video stream of a plain file. Its decoder takes one thread in a worker process, or if asked to, as
    with many an error in the last frames may get lost; else as many as it likes."""
    found = file_stat(path)
    if found.st_size == 0:
        raise VideoError(path, "is empty (0 bytes)")
    try:
        with _open(path) as container:
            streams = video_streams(container)
            if not streams:
                raise VideoError(path, "has no video stream" + (" (only audio)" if container.streams.audio else ""))
            stream = streams[0]
            if len(streams) > 1:
                stream = container.streams[chosen_stream(path, found.st_size, found.st_mtime_ns)]
            context = stream.codec_context
            if context is None:
                raise VideoError(path, "is in a format that this build of FFmpeg cannot decode")
            if context.width * context.height > MAX_PIXELS or max(context.width, context.height) > MAX_SIDE:
                raise VideoError(path, f"claims frames of {context.width}×{context.height} pixels")
            context.options = {"max_pixels": str(MAX_PIXELS)}
            context.thread_type = "AUTO"
            context.thread_count = 1 if one_thread else num_threads()
            yield container, stream
    except av.error.FFmpegError as error:
        with contextlib.suppress(OSError):
            refuse_cut_pieces(path)  # then that is the reason
        if isinstance(error, av.error.EOFError):
            raise VideoError(path, "ends too early: no video is left to decode") from None
        raise VideoError(path, f"cannot be decoded ({(error.strerror or str(error)).lower()})") from None
    except OSError as error:
        raise VideoError(path, os_reason(error)) from None


def _open(path: str) -> av.container.InputContainer:
    """Only plain files: neither a file's name nor a playlist inside it may reach for anything else."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    return av.open(f"file:{path}", options=options, metadata_errors="ignore")


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Those that are no cover and no thumbnails of chapters."""
    return [stream for stream in container.streams.video if not stream.disposition & COVERS]


@lru_cache(maxsize=65536)
def chosen_stream(path: str, size: int, mtime_ns: int) -> int:
    """The number of the stream to read, where a file has several that may be the film. Raises what libav raises.

    Of those that can be decoded, are no still or addition to another, and have more than one picture, as far as there
    are such: the default one, or libav's best where none or several are, or the largest where that is none of them.
    """
    with _open(path) as container:
        streams = video_streams(container)
        pictures = dict.fromkeys(streams, 0)  # a preview in front of the film may be called the default one
        for packet in demux(container, *streams):
            if packet.size and packet.stream in pictures:
                pictures[packet.stream] += 1
            if min(pictures.values()) > 1:
                break
        for is_better in (
            lambda stream: stream.codec_context is not None,
            lambda stream: not stream.disposition & ADDITIONS,
            lambda stream: pictures[stream] > 1,
            lambda stream: stream.disposition & av.stream.Disposition.default,
        ):
            streams = [stream for stream in streams if is_better(stream)] or streams
        best = container.streams.best("video")
        if len(streams) == 1 or best not in streams:
            best = max(streams, key=lambda stream: stream.width * stream.height if stream.codec_context else 0)
        return best.index


def num_threads() -> int:
    """Of a decoder: one in a worker process, else 0, as many as it likes."""
    return 0 if torch.utils.data.get_worker_info() is None else 1


def demux(container: av.container.InputContainer, *streams: av.VideoStream) -> Iterator[av.Packet]:
    """The streams' packets, with an empty one at the end.

    Where other streams appear in the midst of a file, PyAV looks for them in a table that is too short, finds what lies
    there, and may raise IndexError. That packet was not ours; reading goes on behind it, with a table that fits.
    """
    for _ in range(1000):
        try:
            for packet in container.demux(*streams):
                yield packet
                if packet.size == 0:
                    return
            return
        except IndexError:
            continue


def decode(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    see: Callable[[av.Packet], None] = lambda packet: None,
) -> Iterator[av.VideoFrame]:
    """All frames; ``see`` is called with every packet before its frames come."""
    for packet in demux(container, stream):
        see(packet)
        yield from packet.decode()


def file_stat(path: str) -> os.stat_result:
    """Of a plain file; VideoError for anything else (opening a pipe would wait for ever)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        if _ADDRESS.match(str(path)):
            raise VideoError(path, "is an address, not a file on this machine; download it first") from None
        raise VideoError(path, os_reason(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(path, "is no plain file")
    return found


def refuse_corrupt(path: str, frame: av.VideoFrame, number: int | str) -> None:
    if frame.is_corrupt:
        raise VideoError(path, f"is damaged: frame {number} does not decode cleanly")


def refuse_truncated(path: str, stream: av.VideoStream) -> None:
    """VideoError where the container's index, or any of its pieces, points behind the end of the file."""
    size = os.path.getsize(path)
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > size:
        raise VideoError(path, f"is truncated: {size:,} bytes of at least {end:,}")
    refuse_cut_pieces(path)


def os_reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({(getattr(error, 'strerror', None) or str(error)).lower()})"
