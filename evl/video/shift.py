"""Shears and translations of whole clips: each line of pixels moves, and the numbers are exactly Pillow's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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
    """Copies ``length`` pixels of each line i from its pixel ``start[i]`` on, so that all lines are aligned.

    Then one array operation computes all lines.
    """
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
