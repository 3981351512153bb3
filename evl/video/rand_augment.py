"""RandAugment of a whole clip: timm's operations, magnitudes and random draws, one draw for all frames.

timm's own code draws the operations. Its functions are replaced by recorders, and it gets a list instead of a picture;
each recorder adds its function and arguments to the list. The recorded calls are then applied to the clip, on the
pixels that the following crop needs. timm's functions process one frame after the other. Only shears and translations,
which would take most of the time, are done for all frames at once, by ``evl.video.rand_augment``.
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
from torch import Tensor

from evl.errors import ConfigError

Call = tuple[Callable, tuple, dict]  # function, arguments after the picture, keywords


class RandAugment:
    """Draws operations, which ``apply`` then applies to a clip.

    ``notation`` is timm's, such as ``rand-m7-n4-mstd0.5-inc1``. ``mean`` is the color (0–1) of pixels that come from
    outside the picture. Interpolation is bicubic, as in the original release.
    """

    def __init__(self, notation: str, mean: Sequence[float]):
        if not notation.startswith("rand-"):
            raise ConfigError(
                f"augment.rand_augment {notation!r}: expected timm's notation, such as rand-m7-n4-mstd0.5-inc1"
            )
        fill = tuple(min(255, round(255 * channel)) for channel in mean)
        hparams = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
        from timm.data import auto_augment  # seconds; a process that reads without RandAugment does not need it

        try:
            self.timm = auto_augment.rand_augment_transform(notation, hparams)
        except (AssertionError, ValueError, KeyError) as error:
            raise ConfigError(f"augment.rand_augment {notation!r} is not in timm's notation: {error}") from None
        for operation in self.timm.ops:
            operation.aug_fn = _Recorder(operation.aug_fn)

    def draw(self, seed: int) -> list[Call]:
        """The calls that timm makes for a picture after ``random.seed(seed)`` and ``np.random.seed(seed)``."""
        with _timm_draws_from(seed):
            return self.timm([])


class _Recorder:
    """Replaces one of timm's functions: it adds the function and its arguments to a list."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, calls: list[Call], *arguments, **keywords) -> list[Call]:
        return [*calls, (self.function, arguments, keywords)]


@contextmanager
def _timm_draws_from(seed: int):
    """Seeds Python's and NumPy's global generators, from which timm draws, and restores their states afterwards."""
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
    """Applies ``calls`` to a uint8 clip (T,3,H,W) and returns its ``crop``: uint8 (T,3,h,w).

    Each operation processes only the part of the picture that the following operations and the crop need.
    """
    size = Box(0, 0, *clip.shape[-2:])
    boxes = [crop]
    for call in reversed(calls):
        boxes.append(_source(call, boxes[-1], size))
    boxes.reverse()
    frames = _part(clip.permute(0, 2, 3, 1), size, boxes[0]).contiguous()
    for (function, arguments, keywords), have, want in zip(calls, boxes[:-1], boxes[1:], strict=True):
        if _is_shift(function, keywords):
            frames = shift(
                frames, have, want, size, *_SHIFTS[function.__name__](size, *arguments), keywords["fillcolor"]
            )
            continue
        if function.__name__ == "posterize" and arguments[0] < 1:  # newer versions of Pillow refuse 0 bits
            frames = torch.zeros_like(frames)
            continue
        pictures = (Image.fromarray(frame) for frame in frames.numpy())
        changed = [function(picture, *arguments, **keywords) for picture in pictures]
        frames = torch.from_numpy(np.stack([np.asarray(picture) for picture in changed]))
        frames = _part(frames, have, want).contiguous()
    return frames.permute(0, 3, 1, 2)


def _source(call: Call, want: Box, size: Box) -> Box:
    """The part of the input that one call needs to compute the part ``want`` of its result.

    It is the whole picture if the part is unknown, or if a part would be rounded in another way (rotation).
    """
    function, arguments, keywords = call
    if function.__name__ in _EACH_PIXEL:
        return want
    if function.__name__ == "sharpness":
        return _within(Box(want.top - 2, want.left - 2, want.bottom + 2, want.right + 2), size)
    corners = [(x + 0.5, y + 0.5) for x in (want.left, want.right - 1) for y in (want.top, want.bottom - 1)]
    if _is_shift(function, keywords):
        axis, slope, constant = _SHIFTS[function.__name__](size, *arguments)
        if axis == 1:
            rows = [y + slope * x + constant for x, y in corners]
            return _within(Box(math.floor(min(rows)) - 3, want.left, math.ceil(max(rows)) + 3, want.right), size)
        columns = [x + slope * y + constant for x, y in corners]
        return _within(Box(want.top, math.floor(min(columns)) - 3, want.bottom, math.ceil(max(columns)) + 3), size)
    return size


def _within(box: Box, size: Box) -> Box:
    """The part of ``box`` inside the picture; if it is empty, a line at the edge, whose pixels are never used."""
    top, bottom = (min(max(y, 0), size.bottom) for y in (box.top, box.bottom))
    left, right = (min(max(x, 0), size.right) for x in (box.left, box.right))
    top, left = min(top, size.bottom - 1), min(left, size.right - 1)
    return Box(top, left, max(bottom, top + 1), max(right, left + 1))


def _part(frames: Tensor, have: Box, want: Box) -> Tensor:
    """The part ``want`` of frames (T,H,W,C) that show the part ``have`` of a picture."""
    return frames[:, want.top - have.top : want.bottom - have.top, want.left - have.left : want.right - have.left]


# name of timm's function -> (axis along which lines move, pixels more from line to line, pixels), for this picture size
_SHIFTS = {
    "shear_x": lambda size, factor: (2, factor, 0.0),
    "shear_y": lambda size, factor: (1, factor, 0.0),
    "translate_x_rel": lambda size, share: (2, 0.0, share * size.right),
    "translate_y_rel": lambda size, share: (1, 0.0, share * size.bottom),
}
_EACH_PIXEL = {"invert", "posterize", "solarize", "solarize_add", "color", "brightness"}


def _is_shift(function: Callable, keywords: dict) -> bool:
    return function.__name__ in _SHIFTS and keywords.get("resample") == Image.Resampling.BICUBIC


def shift(frames: Tensor, have, want, size, axis: int, slope: float, constant: float, fill: Sequence[int]) -> Tensor:
    """Moves each line along ``axis`` (1: columns, 2: rows) towards its start: uint8 (T,H,W,C) -> (T,h,w,C).

    ``frames`` show the part ``have`` of the pictures, and the result shows the part ``want``. Line i moves by
    slope · (i + ½) + constant pixels. Pixels that come from outside the picture get the color ``fill`` (C). ``have``,
    ``want`` and ``size``, the whole picture, are boxes (top, left, bottom, right). ``have`` has the same lines as
    ``want``, and of each line at least the pixels that ``want`` needs.

    The numbers are exactly those of Pillow's bicubic AFFINE transform: out(x) = cubic(in, x + shift), with Keys' cubic
    of a = −1. Pixels beyond an edge equal the pixel at the edge. Sums are in double precision and cut, not rounded, to
    bytes.
    """
    along, across = (0, 1) if axis == 1 else (1, 0)  # indices into a box: along a line, and from line to line
    lines = np.arange(want[across], want[across + 2])
    places = np.arange(want[along], want[along + 2])
    # the position that each pixel comes from, (lines, places), rounded as in Pillow
    origin = places + 0.5 + (slope * (lines + 0.5))[:, None] + constant
    whole = np.floor(slope * (lines + 0.5) + constant).astype(np.int64)
    part = (origin - 0.5) - (places + whole[:, None])
    outside = (origin < 0) | (origin >= size[along + 2])
    if axis == 1:
        part, outside = part.T, outside.T
    part = torch.from_numpy(part)[..., None].expand(*part.shape, frames.shape[-1]).contiguous()
    out = torch.empty(len(frames), *part.shape, dtype=torch.uint8)
    straight = _straighten(frames.numpy(), whole - 1 + want[along] - have[along], len(places) + 3, axis)
    for frame, pixels in zip(out, torch.from_numpy(straight), strict=True):  # one at a time, to stay in the CPU's cache
        frame.copy_(_cubic(pixels.to(torch.int16), axis - 1, part))
    if outside.any():
        out[:, torch.from_numpy(outside)] = torch.tensor(fill, dtype=torch.uint8)
    return out


def _straighten(frames: np.ndarray, start: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Copies ``length`` pixels of each line i from its pixel ``start[i]`` on, so that all lines are aligned."""
    available = frames.shape[axis]
    start = np.clip(start, -length, available)  # lines that start farther outside get only the fill color
    before, behind = max(0, -start.min()), max(0, start.max() + length - available)
    first, last = (np.take(frames, [place], axis) for place in (0, -1))
    frames = np.concatenate([first.repeat(before, axis), frames, last.repeat(behind, axis)], axis)
    start = start + before
    if (start == start[0]).all():
        begin = [slice(None)] * 4
        begin[axis] = slice(start[0], start[0] + length)
        return frames[tuple(begin)]
    shape = list(frames.shape)
    shape[axis] = length
    straight = np.empty(shape, np.uint8)
    pixel = f"V{shape[-1]}"  # the channels of a pixel as one value, to copy them together
    lines, from_lines = (np.swapaxes(array.view(pixel)[..., 0], axis, 2) for array in (straight, frames))
    for i, place in enumerate(start):
        lines[:, i] = from_lines[:, i, place : place + length]
    return straight


def _cubic(pixels: Tensor, axis: int, part: Tensor) -> Tensor:
    """Keys' cubic of four neighboring pixels each: int16 ``pixels`` -> double (H,W,C), 0–255.

    ``part`` (H,W,C) is the position between the second and third pixel, 0 to 1. ``pixels`` is (H,W,C) with three more
    pixels along ``axis``.
    """
    one, two, three, four = (pixels.narrow(axis, k, pixels.shape[axis] - 3) for k in range(4))
    slope = one - two
    p4 = (four - three).sub_(slope)
    p3 = slope.sub_(p4)
    # addcmul would round once where Pillow rounds twice, and later operations could enlarge a difference of one
    value = p4.double().mul_(part).add_(p3.double()).mul_(part).add_((three - one).double())
    return value.mul_(part).add_(two.double()).clamp_(0, 255)
