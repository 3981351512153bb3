"""Augmentation of whole uint8 clips: one random draw per clip, the same for all its frames (docs/method.md section 7).

All random numbers come from the generator that the caller passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evl.config import AugmentConfig
from evl.types import Preprocessing
from evl.video.rand_augment import Box, RandAugment, apply
from evl.video.transforms import normalize, resize

DIRECTION_WORDS = {"left", "right", "leftward", "rightward", "leftwards", "rightwards", "clockwise", "counterclockwise",
                   "anticlockwise"}  # fmt: skip


class TrainingTransform:
    """Augments a uint8 clip (T,C,H,W) -> (T,C,h,w), where h×w is the image size.

    The steps are RandAugment on the full picture, random resized crop, and flip. The result is uint8, to be normalized
    on the model's device by ``normalize``. With random erasing it is normalized float32 instead, because bytes cannot
    hold the normal noise that fills the erased box. The argument is not modified.
    """

    def __init__(self, config: AugmentConfig, preprocessing: Preprocessing, class_names: Sequence[str] = ()):
        self.config = config
        self.preprocessing = preprocessing
        self.flip = config.flip if config.flip != "auto" else 0.0 if names_direction(class_names) else 0.5
        self.rand_augment = None
        if config.rand_augment:
            self.rand_augment = RandAugment(config.rand_augment, preprocessing.mean)

    def __call__(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        calls = self.rand_augment.draw(int(generator.integers(2**32))) if self.rand_augment is not None else []
        top, left, height, width = draw_crop(
            *clip.shape[-2:], area=self.config.crop_area, ratio=self.config.crop_ratio, generator=generator
        )
        crop = apply(calls, clip, Box(top, left, top + height, left + width))
        pre = self.preprocessing
        crop = resize(crop, pre.image_size, interpolation=pre.interpolation, antialias=pre.antialias)
        if generator.random() < self.flip:
            crop = crop.flip(-1)
        if self.config.erasing == 0:
            return crop.contiguous()
        crop = normalize(crop, pre.mean, pre.std)
        return erase(crop, generator) if generator.random() < self.config.erasing else crop


def names_direction(class_names: Sequence[str]) -> bool:
    """Whether a class name has a direction ("pushing something from left to right"), so clips must not be flipped."""
    words = (word for name in class_names for word in name.lower().replace("_", " ").replace("-", " ").split())
    return any(word.strip(".,;:()[]") in DIRECTION_WORDS for word in words)


def draw_crop(
    height: int, width: int, *, area: tuple[float, float], ratio: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop, as in torchvision.

    ``area`` is the range of its share of the picture, ``ratio`` that of its aspect ratio, drawn log-uniformly. If ten
    draws do not fit into the picture, the crop is the largest centered one of an allowed ratio.
    """
    for _ in range(10):
        pixels = height * width * generator.uniform(*area)
        aspect = np.exp(generator.uniform(*np.log(ratio)))
        w, h = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def erase(clip: Tensor, generator: np.random.Generator) -> Tensor:
    """A copy of a normalized clip (T,C,H,W) in which one box, the same in all frames, is filled with normal noise."""
    top, left, h, w = draw_crop(*clip.shape[-2:], area=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), generator=generator)
    clip = clip.clone()
    noise = generator.standard_normal((*clip.shape[:2], h, w), dtype=np.float32)
    clip[..., top : top + h, left : left + w] = torch.from_numpy(noise)
    return clip
