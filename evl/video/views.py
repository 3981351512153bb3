"""Evaluation views of a file: several clips and several crops, normalized."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from evl.runtime.files import expand_home
from evl.types import Preprocessing
from evl.video.decode.reader import read_clip
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
    """Reads the evaluation views of a video: float32 (V,T,C,H,W), V = num_clips · num_crops.

    All clips of the first crop come first. Clips are evenly spaced over the video. Frames are resized to cover
    ``size``, cropped, and normalized. Only the frames that the views need are decoded.

    Args:
        num_frames: T, the frames of a clip.
        stride: frames from one frame of a dense clip to the next; ignored with ``frames_per_second``.
        num_crops: 1 for the center, or 3 for start, middle and end of the longer side.
        size: H and W in pixels: one number, or (height, width).
        mean, std: three numbers each, for pixels in 0–1.
        frames_per_second: frames of a dense clip for each second of the video (``evl.video.sampling``).
        sampling: ``dense`` or ``segment``.
        interpolation, antialias: of resizing; the defaults are those of the original release.
        pixel_aspect: whether pixels that are not square are made square first.
        start_seconds, end_seconds: the part of the file to read.
        verify: whether to decode the whole file, or the part between the times, and refuse it if it is damaged.
        decoder: what decodes if nothing is verified.

    Raises VideoError, with the reason, for a file that cannot be used, and ValueError for wrong arguments.
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
        raise ValueError("frames_per_second needs sampling='dense'; segments spread a clip over the whole video")
    if sampling == "dense" and stride is None and frames_per_second is None:
        raise ValueError("dense sampling needs a stride (in frames), or frames_per_second")

    plan = EvenClips(Spacing(num_frames, stride, frames_per_second, sampling), num_clips)
    times = dict(start_seconds=start_seconds, end_seconds=end_seconds)
    clip = read_clip(path, plan, **times, verify=verify, decoder=decoder, square_pixels=pixel_aspect)
    return evaluation_views(clip.frames, plan.places(clip.known), num_crops, preprocessing)
