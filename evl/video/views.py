"""Evaluation views of a file: several clips, several crops, normalised."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from evl.files import expand_home
from evl.types import Preprocessing
from evl.video.index import frame_index
from evl.video.reader import find_part, read_clip
from evl.video.sampling import clip_indices, segment_indices
from evl.video.timed import TimedSampling
from evl.video.torchcodec import Decoder
from evl.video.transforms import evaluation_views

AnyPath = str | bytes | os.PathLike


def read_views(
    path: AnyPath,
    *,
    num_frames: int,
    stride: int | None = None,
    num_clips: int,
    num_crops: int,
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    frames_per_second: float | None = None,
    sampling: str = "dense",
    interpolation: str = "bilinear",
    antialias: bool = False,
    pixel_aspect: bool = False,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    verify: bool = False,
    decoder: Decoder = "pyav",
) -> Tensor:
    """The views a video is judged by: float (V,T,C,H,W), V = num_clips · num_crops, all clips of the first crop first.

    Clips are evenly spaced (``sampling``: ``dense`` or ``segment``). Frames of a dense clip are ``stride`` frames
    apart; with ``frames_per_second`` they are so many in a second (``evl.video.timed``), and ``stride`` does not
    matter. Frames are resized to cover ``size`` (by default as in the original release: bilinear, no antialias),
    cropped at the centre (1) or at start, middle and end (3), and normalised. ``pixel_aspect`` makes pixels that are
    not square so before. Times cut an untrimmed file. Only what the views need is decoded, unless ``verify`` asks that
    the whole file, or the part between the times, decodes cleanly. Raises VideoError, with the reason, for a file that
    cannot be used.
    """
    path = expand_home(os.fsdecode(path))
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size {size}: expected a number of pixels, or (height, width)")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean {tuple(mean)}, std {tuple(std)}: expected three numbers each, std above 0")
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation {interpolation!r}: expected 'bilinear' or 'bicubic'")
    preprocessing = Preprocessing(size, tuple(mean), tuple(std), interpolation, antialias, pixel_aspect)
    if sampling not in ("dense", "segment"):
        raise ValueError(f"sampling {sampling!r}: expected 'dense' or 'segment'")

    if frames_per_second is not None and sampling != "dense":
        raise ValueError("frames_per_second goes with sampling='dense'; segments spread a clip over the whole video")
    if sampling == "dense" and stride is None and frames_per_second is None:
        raise ValueError("dense sampling needs a stride (in frames), or frames_per_second")

    def read(choose: Callable[..., Sequence[int]], **how) -> Tensor:
        times = dict(start_seconds=start_seconds, end_seconds=end_seconds)
        return read_clip(path, choose, **times, **how, verify=verify, decoder=decoder).frames

    return views_of(
        read,
        preprocessing,
        num_frames=num_frames,
        stride=stride,
        frames_per_second=frames_per_second,
        sampling=sampling,
        num_clips=num_clips,
        num_crops=num_crops,
    )


def views_of(
    read: Callable[..., Tensor],
    preprocessing: Preprocessing,
    *,
    num_frames: int,
    stride: int | None,
    frames_per_second: float | None = None,
    sampling: str,
    num_clips: int,
    num_crops: int,
) -> Tensor:
    """As ``read_views``; ``read(choose, by_time=…, square_pixels=…)`` gives the frames of a video that ``choose``
    names, as ``read_clip`` does."""
    clips: list[list[int]] = []
    by_time = None if frames_per_second is None else TimedSampling(num_frames, frames_per_second)

    def choose(known: int | np.ndarray) -> list[int]:
        if by_time is not None:
            clips[:] = [by_time.indices(known, start) for start in by_time.starts(known, num_clips)]
        elif sampling == "dense":
            clips[:] = clip_indices(known, num_frames=num_frames, stride=stride, num_clips=num_clips)
        else:
            clips[:] = segment_indices(known, num_frames=num_frames, num_clips=num_clips)
        return sorted({index for clip in clips for index in clip})

    frames = read(choose, by_time=by_time is not None, square_pixels=preprocessing.pixel_aspect)
    place = {number: i for i, number in enumerate(sorted({number for clip in clips for number in clip}))}
    places = [[place[number] for number in clip] for clip in clips]
    return evaluation_views(frames, places, num_crops, preprocessing)


def frame_range(path: AnyPath, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """First frame and number of frames of the part [start, end) of a file, in seconds from its first frame."""
    path = os.fsdecode(path)
    return find_part(path, frame_index(path), start_seconds, end_seconds)
