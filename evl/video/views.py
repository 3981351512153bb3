"""Evaluation views of a file: several clips, several crops, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from evl.errors import VideoError
from evl.types import Preprocessing
from evl.video.reader import probe, read_frames
from evl.video.sampling import clip_indices, segment_indices
from evl.video.transforms import evaluation_views


def read_views(
    path: str | Path,
    *,
    num_frames: int,
    stride: int,
    num_clips: int,
    num_crops: int,
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    sampling: str = "dense",
    interpolation: str = "bilinear",
    antialias: bool = False,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Tensor:
    """The views a video is judged by: float (V,T,C,H,W), V = num_clips · num_crops, all clips of the first crop first.

    Clips are evenly spaced (``sampling``: ``dense`` or ``segment``); frames are resized to cover ``size`` (by default
    as in the original release: bilinear, no antialias), cropped at the centre (1) or at start, middle and end (3), and
    normalised. Times cut an untrimmed file. Raises VideoError, with the reason, for a file that cannot be used.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size {size}: expected a number of pixels, or (height, width)")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean {tuple(mean)}, std {tuple(std)}: expected three numbers each, std above 0")
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation {interpolation!r}: expected 'bilinear' or 'bicubic'")
    preprocessing = Preprocessing(size, tuple(mean), tuple(std), interpolation, antialias)
    first, count = frame_range(path, start_seconds, end_seconds)
    if sampling == "dense":
        clips = clip_indices(count, num_frames=num_frames, stride=stride, num_clips=num_clips)
    elif sampling == "segment":
        clips = segment_indices(count, num_frames=num_frames, num_clips=num_clips)
    else:
        raise ValueError(f"sampling {sampling!r}: expected 'dense' or 'segment'")
    wanted = sorted({index for clip in clips for index in clip})
    place = {index: i for i, index in enumerate(wanted)}
    frames = read_frames(path, [first + index for index in wanted])
    return torch.stack(
        [
            crop[[place[index] for index in clip]]
            for crop in evaluation_views(frames, num_crops, preprocessing)
            for clip in clips
        ]
    )


def frame_range(path: str | Path, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """First frame and number of frames of the part [start, end) of a file, in seconds from its first frame."""
    info = probe(path)
    if start_seconds is None and end_seconds is None:
        return 0, info.num_frames
    start = start_seconds or 0.0
    end = float("inf") if end_seconds is None else end_seconds
    zero = info.times_seconds[0]
    inside = [i for i, time in enumerate(info.times_seconds) if start <= round(time - zero, 6) < end]
    if not inside:
        raise VideoError(
            str(path), f"has no frame between {start:g} and {end:g} s (it lasts {info.duration_seconds:.2f} s)"
        )
    return inside[0], inside[-1] - inside[0] + 1
