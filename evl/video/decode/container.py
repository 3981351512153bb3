"""Opening untrusted video files safely; everything that goes wrong becomes a VideoError."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import av
import torch

from evl.errors import VideoError
from evl.video.decode.decoders import MAX_PIXELS, decode_packet, decoder_of
from evl.video.decode.missing import AWAY, os_reason, unreadable
from evl.video.decode.truncation import refuse_truncated as refuse_cut_pieces

# FFmpeg's names of the formats that hold a video in one file; not playlists (which name other files) or still pictures
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,m4v,h264,hevc,av1,obu,ivf,nut,"
    "mxf,dv,rm,wtv,swf,vc1,3gp,mp3,aac,wav,flac,ac3"
)
MAX_SIDE = 2**14
# what decoders report only if they are asked to; for other codecs this finds no more, or refuses sound files
STRICT = {
    "h264": {"err_detect": "aggressive"},  # bits that are left at the end of a slice (CAVLC)
    "mjpeg": {"err_detect": "explode"},  # a picture of which only the upper part decodes
    "mpeg1video": {"err_detect": "bitstream+buffer+explode"},
    "mpeg2video": {"err_detect": "bitstream+buffer+explode"},
}
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)  # one slash, because pathlib turns two into one
COVERS = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
ADDITIONS = av.stream.Disposition.still_image | av.stream.Disposition.dependent  # still pictures, layers on a stream


@contextmanager
def open_video(path: str, *, one_thread: bool = False) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a plain file and yields its container and its video stream. Raises VideoError, also from within the block.

    The decoder uses one thread in a worker process, else as many as it chooses. ``one_thread`` makes it one everywhere:
    with several threads, the decoder may not report an error in the last frames. So it is for H.264 with B-frames:
    there, with several threads, a frame can be returned before the decoder marks it as corrupt.
    """
    info = file_stat(path)
    if info.st_size == 0:
        raise VideoError(path, "is empty (0 bytes)")
    try:
        with _open(path) as container:
            streams = video_streams(container)
            if not streams:
                raise VideoError(path, "has no video stream" + (" (only audio)" if container.streams.audio else ""))
            stream = streams[0]
            if len(streams) > 1:
                stream = container.streams[chosen_stream(path, info.st_size, info.st_mtime_ns)]
            context = stream.codec_context
            if context is None:
                raise VideoError(path, "is in a format that this build of FFmpeg cannot decode")
            if context.width * context.height > MAX_PIXELS or max(context.width, context.height) > MAX_SIDE:
                raise VideoError(path, f"claims frames of {context.width}×{context.height} pixels")
            context.options = {"max_pixels": str(MAX_PIXELS)} | STRICT.get(context.name, {})
            context.thread_type = "AUTO"
            marks_late = context.name == "h264" and context.has_b_frames
            context.thread_count = 1 if one_thread or marks_late else num_threads()
            yield container, stream
    except av.error.FFmpegError as error:
        # EIO may also be what libav makes of a broken file
        away = error if error.errno in AWAY - {errno.EIO} else unreadable(path) if error.errno == errno.EIO else None
        if away is not None:
            raise VideoError(path, os_reason(away)) from None
        with contextlib.suppress(OSError):
            refuse_cut_pieces(path)  # if the file is truncated, that error is clearer
        if isinstance(error, av.error.EOFError):
            raise VideoError(path, "ends too early: no video is left to decode") from None
        raise VideoError(path, f"cannot be decoded ({(error.strerror or str(error)).lower()})") from None
    except OSError as error:
        raise VideoError(path, os_reason(error)) from None


def _open(path: str) -> av.container.InputContainer:
    """Opens a plain file only; neither a file's name nor a playlist inside it can open an address or another device."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    return av.open(f"file:{path}", options=options, metadata_errors="ignore")


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams of a container, without covers and the thumbnails of chapters."""
    return [stream for stream in container.streams.video if not stream.disposition & COVERS]


@lru_cache(maxsize=65536)
def chosen_stream(path: str, size: int, mtime_ns: int) -> int:
    """The number of the stream to read in a file with several video streams. Raises libav's errors.

    Four conditions are applied one after the other: the stream can be decoded; it is neither a still picture nor an
    addition to another stream; it has more than one picture; the file marks it as default. Streams that miss a
    condition drop out, unless all would. If several remain, libav's best stream is taken, or else the largest.
    """
    with _open(path) as container:
        streams = video_streams(container)
        pictures = dict.fromkeys(streams, 0)  # the file may mark a preview picture as its default stream
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
    """The number of threads for a decoder: 1 in a worker process, else 0, which lets the decoder choose."""
    return 0 if torch.utils.data.get_worker_info() is None else 1


def demux(container: av.container.InputContainer, *streams: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of the streams, with an empty one at the end.

    If a new stream appears in the middle of a file, PyAV looks it up in a table that is too short, and may raise
    IndexError. That packet belongs to another stream, so reading continues after it, and PyAV makes a new table.
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
    on_packet: Callable[[av.Packet], None] = lambda packet: None,
) -> Iterator[av.VideoFrame]:
    """All frames of a stream; ``on_packet`` is called with every packet before its frames are yielded."""
    decoder = decoder_of(container, stream)
    for packet in demux(container, stream):
        on_packet(packet)
        yield from decode_packet(decoder, packet)


def file_stat(path: str) -> os.stat_result:
    """``os.stat`` of a plain file. Raises VideoError for anything else, because opening a pipe could wait for ever."""
    try:
        info = os.stat(path)
    except (OSError, ValueError) as error:
        if _ADDRESS.match(str(path)):
            raise VideoError(path, "is an address, not a file on this machine; download it first") from None
        raise VideoError(path, os_reason(error)) from None
    if not stat.S_ISREG(info.st_mode):
        raise VideoError(path, "is not a plain file")
    return info


def refuse_corrupt(path: str, frame: av.VideoFrame, number: int | str) -> None:
    if frame.is_corrupt:
        raise VideoError(path, f"is damaged: frame {number} does not decode cleanly")


def refuse_truncated(path: str, stream: av.VideoStream) -> None:
    """Raises VideoError if the container's index, or any of its pieces, points beyond the end of the file."""
    size = os.path.getsize(path)
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > size:
        raise VideoError(path, f"is truncated: {size:,} bytes of at least {end:,}")
    refuse_cut_pieces(path)
