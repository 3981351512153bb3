"""Opening files that nobody vouches for: nothing in them is believed, and all that goes wrong becomes a VideoError."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
import torch

from evl.errors import VideoError

# FFmpeg's names of formats that hold a video in one file: no playlists (which name other files), no still pictures
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,m4v,h264,hevc,av1,obu,ivf,nut,"
    "mxf,dv,rm,wtv,swf,vc1,3gp,mp3,aac,wav,flac,ac3"
)
MAX_PIXELS = 2**26  # 8192 × 8192; a header that claims more is taken for a lie


@contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Container and video stream of a plain file; its decoder takes one thread in a worker process, else its choice."""
    size = file_stat(path).st_size
    if size == 0:
        raise VideoError(path, "is empty (0 bytes)")
    try:
        # only plain files: neither a file's name nor a playlist inside it may reach for anything else
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            stream = next((s for s in container.streams.video if not _is_cover(s)), None)
            if stream is None:
                raise VideoError(path, "has no video stream" + (" (only audio)" if container.streams.audio else ""))
            context = stream.codec_context
            if context is None:
                raise VideoError(path, "is in a format that this build of FFmpeg cannot decode")
            if context.width * context.height > MAX_PIXELS:
                raise VideoError(path, f"claims frames of {context.width}×{context.height} pixels")
            _refuse_truncated(path, size, stream)
            context.options = {"max_pixels": str(MAX_PIXELS)}
            context.thread_type = "AUTO"
            context.thread_count = 1 if torch.utils.data.get_worker_info() is not None else 0
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(path, f"cannot be decoded ({(error.strerror or str(error)).lower()})") from None
    except OSError as error:
        raise VideoError(path, _os_reason(error)) from None


def file_stat(path: str) -> os.stat_result:
    """Of a plain file; VideoError for anything else (opening a pipe would wait for ever)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, _os_reason(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(path, "is no plain file")
    return found


def refuse_corrupt(path: str, frame: av.VideoFrame, number: int | str) -> None:
    if frame.is_corrupt:
        raise VideoError(path, f"is damaged: frame {number} does not decode cleanly")


def _is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _refuse_truncated(path: str, size: int, stream) -> None:
    """Where the container's index, or its head, points behind the end of the file, the rest was cut off."""
    with open(path, "rb") as file:
        claimed = _claimed_end(file)
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if max(end, claimed) > size:
        raise VideoError(path, f"is truncated: {size:,} bytes of at least {max(end, claimed):,}")


def _claimed_end(file: BinaryIO) -> int:
    """Where an AVI or Matroska file says that it ends; 0 if it does not say."""
    head = file.read(64)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1a\x45\xdf\xa3":  # EBML: one element for the head, then one, "Segment", for all else
        return 0
    start, length = _ebml_size(head, 4)
    segment = start + (length or 0)
    file.seek(segment)
    head = file.read(12)
    if head[:4] != b"\x18\x53\x80\x67":
        return 0
    start, length = _ebml_size(head, 4)
    return segment + start + length if length is not None else 0


def _ebml_size(data: bytes, at: int) -> tuple[int, int | None]:
    """(where the element's content starts, its length; None: unknown, as in a live stream)."""
    if len(data) <= at or data[at] == 0:
        return at, None
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return at + width, None if value == (1 << 7 * width) - 1 else value


def _os_reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({(getattr(error, 'strerror', None) or str(error)).lower()})"
