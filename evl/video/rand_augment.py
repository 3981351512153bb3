"""RandAugment of a whole clip: timm's operations, magnitudes and draws, one draw for all frames.

timm itself draws, by its own code; only the pictures are not what it is given, but a list on which its operations leave
their names and arguments. What was drawn is then applied to the clip: by timm's functions, frame by frame, except for
shears and translations. These are the larger part of the time, and shift whole rows: here they are done for all frames
at once, by the arithmetic that Pillow does pixel by pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from torch import Tensor

from evl.errors import ConfigError

Call = tuple[Callable, tuple, dict]  # function, what follows the picture, keywords


class RandAugment:
    """timm's notation (``rand-m7-n4-mstd0.5-inc1``) and the mean colour (0–1), which is what moves into the picture.

    ``transform(clip, generator)``: uint8 (T,3,H,W) -> the same, a new one. Bicubic, as the release has it.
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

    def __call__(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        frames = clip.permute(0, 2, 3, 1).contiguous()
        for function, arguments, keywords in self.draw(int(generator.integers(2**32))):
            if function in _SHIFTS and keywords.get("resample") == Image.Resampling.BICUBIC:
                frames = _SHIFTS[function](frames, *arguments, fill=keywords["fillcolor"])
            else:
                pictures = (Image.fromarray(frame) for frame in frames.numpy())
                changed = [np.asarray(function(picture, *arguments, **keywords)) for picture in pictures]
                frames = torch.from_numpy(np.stack(changed))
        return frames.permute(0, 3, 1, 2)

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


def _shear_x(frames: Tensor, factor: float, *, fill: Sequence[int]) -> Tensor:
    return shift(frames, factor * (np.arange(frames.shape[1]) + 0.5), 2, fill)


def _shear_y(frames: Tensor, factor: float, *, fill: Sequence[int]) -> Tensor:
    return shift(frames, factor * (np.arange(frames.shape[2]) + 0.5), 1, fill)


def _translate_x(frames: Tensor, share: float, *, fill: Sequence[int]) -> Tensor:
    return shift(frames, np.full(frames.shape[1], share * frames.shape[2]), 2, fill)


def _translate_y(frames: Tensor, share: float, *, fill: Sequence[int]) -> Tensor:
    return shift(frames, np.full(frames.shape[2], share * frames.shape[1]), 1, fill)


_SHIFTS = {
    auto_augment.shear_x: _shear_x,
    auto_augment.shear_y: _shear_y,
    auto_augment.translate_x_rel: _translate_x,
    auto_augment.translate_y_rel: _translate_y,
}


def shift(frames: Tensor, shifts: np.ndarray, axis: int, fill: Sequence[int]) -> Tensor:
    """Lines along ``axis`` (1: columns, 2: rows) of all frames (T,H,W,C), uint8, moved towards their start, the i-th by
    ``shifts[i]`` pixels; ``fill`` (C) where it came from outside.

    As Pillow's bicubic AFFINE transform: out(x) = cubic(in, x + shift), with Keys' cubic of a = −1, beyond the edge the
    pixel at the edge, in double precision, cut (not rounded) to bytes.
    """
    length = frames.shape[axis]
    origin = np.arange(length) + 0.5 + shifts[:, None]  # (lines, length): where pixels come from, rounded as Pillow's
    whole = np.floor(shifts).astype(np.int64)
    part = (origin - 0.5) - (np.arange(length) + whole[:, None])
    outside = (origin < 0) | (origin >= length)
    if axis == 1:
        part, outside = part.T, outside.T
    part = torch.from_numpy(part)[..., None].expand(frames.shape[1:]).contiguous()
    out = torch.empty_like(frames)
    straight = _straighten(frames.numpy(), whole - 1, axis)
    for frame, pixels in zip(out, torch.from_numpy(straight), strict=True):  # one at a time: it stays in the cache
        frame.copy_(_cubic(pixels.to(torch.int16), axis - 1, part))
    out[:, torch.from_numpy(outside)] = torch.tensor(fill, dtype=torch.uint8)
    return out


def _straighten(frames: np.ndarray, start: np.ndarray, axis: int) -> np.ndarray:
    """Line i from its pixel ``start[i]`` on, three longer than it was: all lines side by side need one arithmetic."""
    length = frames.shape[axis]
    start = np.clip(start, -length - 3, length + 3)  # farther out, all is fill
    before, behind = max(0, -start.min()), max(0, (start + 3).max())
    first, last = (np.take(frames, [place], axis) for place in (0, -1))
    frames = np.concatenate([first.repeat(before, axis), frames, last.repeat(behind, axis)], axis)
    start = start + before
    if (start == start[0]).all():
        return frames.take(range(start[0], start[0] + length + 3), axis)
    shape = list(frames.shape)
    shape[axis] = length + 3
    straight = np.empty(shape, np.uint8)
    pixel = f"V{shape[-1]}"  # copied as one
    lines, from_lines = (np.swapaxes(array.view(pixel)[..., 0], axis, 2) for array in (straight, frames))
    for i, place in enumerate(start):
        lines[:, i] = from_lines[:, i, place : place + length + 3]
    return straight


def _cubic(pixels: Tensor, axis: int, part: Tensor) -> Tensor:
    """int16 (H,W,C), but three more along ``axis``, and how far between the second and third of four pixels (H,W,C)
    -> double (H,W,C), 0–255."""
    one, two, three, four = (pixels.narrow(axis, k, pixels.shape[axis] - 3) for k in range(4))
    slope = one - two
    p4 = (four - three).sub_(slope)
    p3 = slope.sub_(p4)
    # not by addcmul, which rounds once where Pillow rounds twice: a byte's difference may grow in what follows
    value = p4.double().mul_(part).add_(p3.double()).mul_(part).add_((three - one).double())
    return value.mul_(part).add_(two.double()).clamp_(0, 255)
