"""Frames → a backbone's input: resize, crop, normalize. All shapes are (…,C,H,W)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from evl.config import RunConfig
from evl.types import Preprocessing


def preprocessing_of(config: RunConfig, own: Preprocessing) -> Preprocessing:
    """A backbone's own preprocessing, changed by the settings of a run."""
    clip = config.clip
    changed = replace(own, antialias=clip.antialias, pixel_aspect=config.data.pixel_aspect)
    return changed if clip.interpolation == "auto" else replace(changed, interpolation=clip.interpolation)


def resized_size(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same aspect ratio that covers ``target``; the longer side is rounded down.

    For a square target: short side = target, long side = floor(long · target / short).
    """
    target_height, target_width = target
    if height * target_width <= width * target_height:  # then the height decides
        return target_height, max(target_width, width * target_height // height)
    return max(target_height, height * target_width // width), target_width


def crop_origins(height: int, width: int, target: tuple[int, int], num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of the evaluation crops: the center for 1, or start, middle and end of the longer side for 3."""
    slack = height - target[0], width - target[1]
    if num_crops == 1:
        parts = [(1, 2)]
    elif num_crops == 3:
        parts = [(0, 2), (1, 2), (2, 2)]
    else:
        raise ValueError(f"num_crops {num_crops}: expected 1 or 3")
    return [(slack[0] * a // b, slack[1] * a // b) for a, b in parts]


def resize(frames: Tensor, size: tuple[int, int], *, interpolation: str, antialias: bool) -> Tensor:
    """Frames (F,C,H,W) -> (F,C,*size), in the same dtype; pixels stay within 0–255, and bytes are rounded.

    For bytes in memory format channels_last, as decoders return them, PyTorch has a kernel that is several times faster
    than the one for floats. It rounds to bytes between its two passes, as Pillow does.
    """
    if frames.dtype == torch.uint8:
        frames = frames.contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(frames, size=size, mode=interpolation, align_corners=False, antialias=antialias)
    overshoots = interpolation == "bicubic" and frames.dtype != torch.uint8  # beyond 0–255
    return resized.clamp_(0, 255) if overshoots else resized


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels 0–255 (…,C,H,W) of any dtype -> float32 (pixels/255 − mean) / std."""
    mean, std = (torch.tensor(x, dtype=torch.float32, device=pixels.device)[:, None, None] for x in (mean, std))
    return (pixels.float() / 255 - mean).div_(std)


def evaluation_views(
    frames: Tensor, clips: Sequence[Sequence[int]], num_crops: int, preprocessing: Preprocessing
) -> Tensor:
    """uint8 frames (F,C,H,W) -> normalized float32 views (V,T,C,h,w), where h×w is the image size.

    ``clips`` holds, for each clip, the positions of its frames in ``frames``. All clips of the first crop come first.
    """
    target = preprocessing.image_size
    size = resized_size(*frames.shape[-2:], target)
    origins = crop_origins(*size, target, num_crops)
    views = torch.empty(len(origins), len(clips), len(clips[0]), frames.shape[1], *target)
    used = [[(c, t) for c, clip in enumerate(clips) for t, place in enumerate(clip) if place == f]
            for f in range(len(frames))]  # fmt: skip
    # one frame after the other, so that memory never holds all frames as floats at the file's own size
    for frame, places in zip(frames, used, strict=True):
        (whole,) = resize(
            frame[None].float(), size, interpolation=preprocessing.interpolation, antialias=preprocessing.antialias
        )
        whole = normalize(whole, preprocessing.mean, preprocessing.std)
        for crop, (top, left) in enumerate(origins):
            for c, t in places:
                views[crop, c, t] = whole[:, top : top + target[0], left : left + target[1]]
    return views.flatten(0, 1)
