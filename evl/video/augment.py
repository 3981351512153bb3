"""Augmentation of whole uint8 clips: one random draw per clip, the same for all its frames (docs/method.md section 7).

All random numbers come from the generator that the caller passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evl.config import AugmentConfig
from evl.types import Preprocessing
from evl.video.rand_augment import Box, RandAugment, apply
from evl.video.transforms import normalize, resize

# a word of a class name -> those that can stand in its place when the picture is mirrored
MIRRORED = {
    "left": ("right",), "right": ("left",), "leftward": ("rightward",), "rightward": ("leftward",),
    "leftwards": ("rightwards",), "rightwards": ("leftwards",), "clockwise": ("counterclockwise", "anticlockwise"),
    "counterclockwise": ("clockwise",), "anticlockwise": ("clockwise",),
}  # fmt: skip


class TrainingTransform:
    """Augments a uint8 clip (T,C,H,W) -> (T,C,h,w), where h×w is the image size.

    The steps are RandAugment on the full picture, random resized crop, and flip. The result is uint8, to be normalized
    on the model's device by ``normalize``. With random erasing it is normalized float32 instead, because bytes cannot
    hold the normal noise that fills the erased box. The argument is not modified.
    """

    def __init__(self, config: AugmentConfig, preprocessing: Preprocessing, class_names: Sequence[str] = ()):
        self.config = config
        self.preprocessing = preprocessing
        self.mirrored = mirrored_labels(class_names) if config.flip == "pairs" else None
        if config.flip == "pairs":
            self.flip = 0.5
        else:
            self.flip = config.flip if config.flip != "auto" else 0.0 if names_direction(class_names) else 0.5
        self.rand_augment = None
        if config.rand_augment:
            self.rand_augment = RandAugment(config.rand_augment, preprocessing.mean)

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules of others that a process imports to call it."""
        return () if self.rand_augment is None else ("timm.data.auto_augment",)

    def __call__(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        return self.labelled(clip, None, generator)[0]

    def labelled(self, clip: Tensor, label: int | None, generator: np.random.Generator) -> tuple[Tensor, int | None]:
        """Returns the augmented clip and its label, the number of a class.

        With ``flip=pairs`` a flipped clip gets the label of the mirrored class, and a clip whose class has no mirrored
        one, or that has no label, is not flipped.
        """
        calls = self.rand_augment.draw(int(generator.integers(2**32))) if self.rand_augment is not None else []
        top, left, height, width = draw_crop(
            *clip.shape[-2:], area=self.config.crop_area, ratio=self.config.crop_ratio, generator=generator
        )
        crop = apply(calls, clip, Box(top, left, top + height, left + width))
        pre = self.preprocessing
        crop = resize(crop, pre.image_size, interpolation=pre.interpolation, antialias=pre.antialias)
        mirrored = label if self.mirrored is None else None if label is None else self.mirrored[label]
        if generator.random() < self.flip and (self.mirrored is None or mirrored is not None):
            crop, label = crop.flip(-1), mirrored
        if self.config.erasing == 0:
            return crop.contiguous(), label
        crop = normalize(crop, pre.mean, pre.std)
        return (erase(crop, generator) if generator.random() < self.config.erasing else crop), label


def names_direction(class_names: Sequence[str]) -> bool:
    """Whether a class name has a direction ("pushing something from left to right"), so clips must not be flipped."""
    return any(word in MIRRORED for name in class_names for word in _words(name))


def mirrored_labels(class_names: Sequence[str]) -> tuple[int | None, ...]:
    """Returns for each class the number of the class that its mirrored clips show.

    It is the class itself if its name has no direction; else the class whose name has the opposite directions; None if
    there is no such class, or if several classes have that name but for punctuation.
    """
    words = [_words(name) for name in class_names]
    numbers: dict[tuple[str, ...], int | None] = {}
    for number, own in enumerate(words):
        numbers[own] = None if own in numbers else number

    def mirrored(number: int) -> int | None:
        if not any(word in MIRRORED for word in words[number]):
            return number
        choices = itertools.product(*(MIRRORED.get(word, (word,)) for word in words[number]))
        found = [numbers[one] for one in choices if numbers.get(one) is not None]
        return found[0] if len(found) == 1 else None

    labels = [mirrored(number) for number in range(len(words))]
    # a pair must be one from both sides
    return tuple(
        other if other is not None and labels[other] == number else None for number, other in enumerate(labels)
    )


def mirrored_in_words(class_names: Sequence[str]) -> list[str]:
    """Returns the pairs that ``flip=pairs`` exchanges, and the classes that it never flips, in words, a line each."""
    labels = mirrored_labels(class_names)
    pairs = [f"{class_names[a]!r} ↔ {class_names[b]!r}" for a, b in enumerate(labels) if b is not None and a < b]
    alone = [repr(class_names[number]) for number, other in enumerate(labels) if other is None]
    lines = [f"flipped clips exchange the labels of {len(pairs)} pairs of classes", *(f"  {pair}" for pair in pairs)]
    if alone:
        lines += [f"clips of {len(alone)} classes are not flipped, because no other class has the mirrored name:"]
        lines += [f"  {name}" for name in alone]
    return lines


def _words(name: str) -> tuple[str, ...]:
    words = (word.strip(".,;:!?()[]") for word in name.lower().replace("_", " ").replace("-", " ").split())
    return tuple(word for word in words if word)


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
