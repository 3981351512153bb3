"""Evaluation views of a file: several clips, several crops, normalised."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from evl.runtime.files import expand_home
from evl.types import Preprocessing
from evl.video.decode.index import frame_index
from evl.video.decode.reader import find_part, read_clip
from evl.video.decode.torchcodec import Decoder
from evl.video.plans import EvenClips, Spacing
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

    plan = EvenClips(Spacing(num_frames, stride, frames_per_second, sampling), num_clips)
    times = dict(start_seconds=start_seconds, end_seconds=end_seconds)
    clip = read_clip(path, plan, **times, verify=verify, decoder=decoder, square_pixels=pixel_aspect)
    return evaluation_views(clip.frames, plan.places(clip.known), num_crops, preprocessing)


def frame_range(path: AnyPath, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """First frame and number of frames of the part [start, end) of a file, in seconds from its first frame."""
    path = os.fsdecode(path)
    return find_part(path, frame_index(path), start_seconds, end_seconds)
