"""A file → frames, by number in presentation order, exact because everything is counted by decoding.

Headers are not believed: how many frames there are, and when they are shown, is what the decoder gives. That costs
one decoding of the whole file when it is first met (kept in memory after); frames are turned into RGB only if wanted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from evl.errors import VideoError
from evl.types import VideoInfo

# FFmpeg's names of formats that hold a video in one file: no playlists (which name other files), no still pictures
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,m4v,h264,hevc,av1,obu,ivf,nut,"
    "mxf,dv,rm,wtv,swf,vc1,3gp,mp3,aac,wav,flac,ac3"
)
MAX_PIXELS = 2**27  # 16,384 × 8,192; a header that claims more is taken for a lie


def probe(path: str | Path) -> VideoInfo:
    """What decoding the whole file tells. Raises VideoError, with the reason, for a file that cannot be used."""
    path = str(path)
    try:
        stat = os.stat(path)
    except OSError as error:
        raise VideoError(path, _os_reason(error)) from None
    return _probe(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8192)  # about 80 MB of times at 300 frames a video
def _probe(path: str, size: int, mtime_ns: int) -> VideoInfo:
    times: list[float] = []
    first = None
    with _open(path) as (container, stream):
        _refuse_truncated(path, size, stream)
        rate = float(stream.average_rate or 25)
        for frame in container.decode(stream):
            _refuse_corrupt(path, frame, len(times))
            first = first or (frame.width, frame.height, frame.rotation)
            previous = times[-1] if times else -1 / rate
            times.append(frame.time if frame.time is not None else previous + 1 / rate)
        codec = stream.codec_context.name
    times.sort()  # frames come in the order they are shown; some containers (H.264 in AVI) label them in another
    if first is None:
        raise VideoError(path, "has a video stream, but not one frame can be decoded")
    width, height, rotation = first
    if rotation % 180:
        width, height = height, width
    return VideoInfo(path, tuple(times), width, height, codec, rotation)


def read_frames(path: str | Path, indices: Sequence[int]) -> Tensor:
    """Frames by number, counted in presentation order: uint8 (len(indices), 3, H, W), RGB, turned upright.

    Indices may repeat and come in any order. Decodes from the start of the file to the last wanted frame. Raises
    VideoError if the file ends before that or is damaged on the way.
    """
    path, wanted = str(path), set(indices)
    if not wanted:
        raise ValueError("no frame indices given")
    if min(wanted) < 0:
        raise ValueError(f"negative frame index {min(wanted)}")
    pictures: dict[int, np.ndarray] = {}
    with _open(path) as (container, stream):
        count = 0
        for frame in _until(container.decode(stream), max(wanted)):
            _refuse_corrupt(path, frame, count)
            if count in wanted:
                pictures[count] = _upright_rgb(frame, pictures)
            count += 1
    if missing := wanted - pictures.keys():
        raise VideoError(path, f"has {count} frames, but frame {min(missing)} was wanted")
    order = {index: place for place, index in enumerate(sorted(pictures))}
    frames = torch.from_numpy(np.stack([pictures[index] for index in sorted(pictures)]))
    return frames[[order[index] for index in indices]].permute(0, 3, 1, 2).contiguous()


def _until(frames: Iterable, last: int) -> Iterator:
    for count, frame in enumerate(frames):
        yield frame
        if count == last:
            return


def _upright_rgb(frame: av.VideoFrame, earlier: dict[int, np.ndarray]) -> np.ndarray:
    """(H,W,3). A stream that changes size is brought to the size of its first wanted frame."""
    picture = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
    for first in earlier.values():
        if picture.shape != first.shape:
            upright = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            picture = upright.reformat(width=first.shape[1], height=first.shape[0]).to_ndarray(format="rgb24")
        break
    return picture


@contextmanager
def _open(path: str):
    """Container and video stream; everything that goes wrong inside becomes a VideoError."""
    if not os.path.isfile(path):
        raise VideoError(path, "is a folder" if os.path.isdir(path) else "no such file")
    if os.path.getsize(path) == 0:
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
            stream.thread_type = "AUTO"
            context.thread_count = 1 if torch.utils.data.get_worker_info() is not None else 0
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(path, f"cannot be decoded ({(error.strerror or str(error)).lower()})") from None
    except OSError as error:
        raise VideoError(path, _os_reason(error)) from None


def _is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _refuse_corrupt(path: str, frame: av.VideoFrame, index: int) -> None:
    if frame.is_corrupt:
        raise VideoError(path, f"is damaged: frame {index} does not decode cleanly")


def _refuse_truncated(path: str, size: int, stream) -> None:
    """Where the container's index points behind the end of the file, the rest was cut off."""
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > size:
        raise VideoError(path, f"is truncated: {size:,} bytes of at least {end:,}")


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({(error.strerror or str(error)).lower()})"
