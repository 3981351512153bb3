"""RandAugment of a whole clip: timm's operations, magnitudes and draws, one draw for all frames.

timm itself draws, by its own code; only the pictures are not what it is given, but a list on which its operations leave
their names and arguments. What was drawn is then applied to the clip, as far as the crop that is taken of it needs: by
timm's functions, frame by frame, except for shears and translations. These are the larger part of the time, and shift
whole lines: ``evl.video.shift`` does them for all frames at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from torch import Tensor

from evl.errors import ConfigError
from evl.video.shift import shift

Call = tuple[Callable, tuple, dict]  # function, what follows the picture, keywords


class RandAugment:
    """timm's notation (``rand-m7-n4-mstd0.5-inc1``) and the mean colour (0–1), which is what moves into the picture.

    ``draw(seed)`` gives what is to be done; ``apply`` does it. Bicubic, as the release has it.
    """

    def __init__(self, notation: str, mean: Sequence[float]):
        if not notation.startswith("rand-"):
            raise ConfigError(
                f"augment.rand_augment {notation!r}: expected timm's notation, such as rand-m7-n4-mstd0.5-inc1"
            )
        fill = tuple(min(255, round(255 * channel)) for channel in mean)
        hparams = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
        try:
            self.timm = auto_augment.rand_augment_transform(notation, hparams)
        except (AssertionError, ValueError, KeyError) as error:
            raise ConfigError(f"augment.rand_augment {notation!r} is not in timm's notation: {error}") from None
        for operation in self.timm.ops:
            operation.aug_fn = _Note(operation.aug_fn)

    def draw(self, seed: int) -> list[Call]:
        """What timm does to a picture after ``random.seed(seed)`` and ``np.random.seed(seed)``."""
        with _timm_draws_from(seed):
            return self.timm([])


class _Note:
    """Stands for one of timm's functions, and adds what it was called with to a list instead."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, calls: list[Call], *arguments, **keywords) -> list[Call]:
        return [*calls, (self.function, arguments, keywords)]


@contextmanager
def _timm_draws_from(seed: int):
    """timm draws from Python's and NumPy's global generators: seed them for a moment, then put them back."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Box(NamedTuple):
    """A part of a picture: rows top … bottom−1, columns left … right−1."""

    top: int
    left: int
    bottom: int
    right: int


def apply(calls: Sequence[Call], clip: Tensor, crop: Box) -> Tensor:
    """``crop`` of a clip, uint8 (T,3,H,W), to which all of ``calls`` was done: uint8 (T,3,h,w).

    Each operation is done on the part of the picture that the following ones, and the crop, are made of.
    """
    size = Box(0, 0, *clip.shape[-2:])
    boxes = [crop]
    for call in reversed(calls):
        boxes.append(_source(call, boxes[-1], size))
    boxes.reverse()
    frames = _part(clip.permute(0, 2, 3, 1), size, boxes[0]).contiguous()
    for (function, arguments, keywords), have, want in zip(calls, boxes[:-1], boxes[1:], strict=True):
        if _is_shift(function, keywords):
            frames = shift(frames, have, want, size, *_SHIFTS[function](size, *arguments), keywords["fillcolor"])
            continue
        if function is auto_augment.posterize and arguments[0] < 1:  # which newer versions of Pillow refuse
            frames = torch.zeros_like(frames)
            continue
        pictures = (Image.fromarray(frame) for frame in frames.numpy())
        changed = [function(picture, *arguments, **keywords) for picture in pictures]
        frames = torch.from_numpy(np.stack([np.asarray(picture) for picture in changed]))
        frames = _part(frames, have, want).contiguous()
    return frames.permute(0, 3, 1, 2)


def _source(call: Call, want: Box, size: Box) -> Box:
    """The part of the picture that ``want`` of the result is made of; all of it where that is not known, or where its
    parts would be rounded otherwise (rotation)."""
    function, arguments, keywords = call
    if function in _EACH_PIXEL:
        return want
    if function is auto_augment.sharpness:
        return _within(Box(want.top - 2, want.left - 2, want.bottom + 2, want.right + 2), size)
    corners = [(x + 0.5, y + 0.5) for x in (want.left, want.right - 1) for y in (want.top, want.bottom - 1)]
    if _is_shift(function, keywords):
        axis, slope, constant = _SHIFTS[function](size, *arguments)
        if axis == 1:
            rows = [y + slope * x + constant for x, y in corners]
            return _within(Box(math.floor(min(rows)) - 3, want.left, math.ceil(max(rows)) + 3, want.right), size)
        columns = [x + slope * y + constant for x, y in corners]
        return _within(Box(want.top, math.floor(min(columns)) - 3, want.bottom, math.ceil(max(columns)) + 3), size)
    return size


def _within(box: Box, size: Box) -> Box:
    """What of it lies in the picture; where that is nothing, a line at the edge, whose pixels nobody will see."""
    top, bottom = (min(max(y, 0), size.bottom) for y in (box.top, box.bottom))
    left, right = (min(max(x, 0), size.right) for x in (box.left, box.right))
    top, left = min(top, size.bottom - 1), min(left, size.right - 1)
    return Box(top, left, max(bottom, top + 1), max(right, left + 1))


def _part(frames: Tensor, have: Box, want: Box) -> Tensor:
    """``want`` of frames (T,H,W,C) that show ``have``."""
    return frames[:, want.top - have.top : want.bottom - have.top, want.left - have.left : want.right - have.left]


# function -> (axis along which lines move, how much farther from line to line, how far), for a picture of this size
_SHIFTS = {
    auto_augment.shear_x: lambda size, factor: (2, factor, 0.0),
    auto_augment.shear_y: lambda size, factor: (1, factor, 0.0),
    auto_augment.translate_x_rel: lambda size, share: (2, 0.0, share * size.right),
    auto_augment.translate_y_rel: lambda size, share: (1, 0.0, share * size.bottom),
}
_EACH_PIXEL = {
    auto_augment.invert,
    auto_augment.posterize,
    auto_augment.solarize,
    auto_augment.solarize_add,
    auto_augment.color,
    auto_augment.brightness,
}


def _is_shift(function: Callable, keywords: dict) -> bool:
    return function in _SHIFTS and keywords.get("resample") == Image.Resampling.BICUBIC
