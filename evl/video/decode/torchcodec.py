"""Decoding by torchcodec, an optional extra, on the CPU or with CUDA's decoder.

torchcodec decodes only the kinds of files for which tests found exactly PyAV's frames; ``read`` returns None for all
others. In some containers (TS, MPEG, FLV, AVI with B-frames) torchcodec seeks to wrong frames without an error. It
returns other colors for some pixel formats (more than 8 bits). Files that are shown turned or mirrored are left to
PyAV, too. The frames of a file are still those of its index (``evl.video.decode.index``). PyAV still verifies files,
because torchcodec does not report damaged frames.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from evl.errors import ConfigError
from evl.video.decode.container import decode, file_stat, num_threads, open_video
from evl.video.decode.index import FrameIndex
from evl.video.decode.orientation import UPRIGHT, Orientations
from evl.video.decode.rgb import is_hdr, pixel_shape

Decoder = Literal["pyav", "torchcodec", "torchcodec-cuda"]
CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
PIXEL_FORMATS = frozenset("yuv420p yuvj420p yuv422p yuv444p gray bgr0 gbrp".split())  # noqa: SIM905


def require(decoder: Decoder) -> None:
    """Raises ConfigError, with what to do, if the decoder is not available."""
    if decoder == "pyav":
        return
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except ImportError:
        raise ConfigError("data.decoder: torchcodec is not installed; pip install torchcodec, or use pyav") from None
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"data.decoder: torchcodec cannot be loaded ({reason}); it needs FFmpeg's libraries"
        ) from None
    if decoder == "torchcodec-cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "data.decoder: torchcodec-cuda needs a CUDA device, and there is none; use torchcodec or pyav"
        )


def read(path: str, index: FrameIndex, wanted: list[int], decoder: Decoder) -> dict[int, np.ndarray] | None:
    """The wanted pictures (H,W,3) by number, or None if PyAV should read this file. Raises VideoError."""
    if index.is_counted:
        return None
    info = file_stat(path)
    stream_index = _stream_index(path, info.st_size, info.st_mtime_ns)
    if stream_index is None:
        return None
    from torchcodec.decoders import VideoDecoder

    try:
        video = VideoDecoder(
            os.path.abspath(path),  # so that the path can never be an address
            stream_index=stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=num_threads(),
            device="cuda" if decoder == "torchcodec-cuda" else "cpu",
            seek_mode="exact",
        )
        if len(video) != index.num_frames:
            return None
        batch = video.get_frames_at(wanted)
    except (RuntimeError, ValueError, IndexError):
        return None
    if np.abs(batch.pts_seconds.numpy() - index.times_seconds[wanted]).max() > 1e-4:
        return None
    return dict(zip(wanted, batch.data.cpu().numpy(), strict=True))


@lru_cache(maxsize=65536)
def _stream_index(path: str, size: int, mtime_ns: int) -> int | None:
    """The number of the video stream to read; None if PyAV should read this file.

    PyAV reads files with a display matrix, because versions of torchcodec treat it in different ways. PyAV also reads
    HDR files and files whose pixels are not square.
    """
    with open_video(path, one_thread=True) as (container, stream):
        if container.format.name not in CONTAINERS or stream.codec_context.pix_fmt not in PIXEL_FORMATS:
            return None
        first = next(decode(container, stream), None)
        if first is None or is_hdr(first.color_trc) or pixel_shape(stream) is not None:
            return None
        return stream.index if Orientations(path).of(first) == UPRIGHT else None
