"""Shears and translations of whole clips: lines that move, by the arithmetic that Pillow does pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def shift(frames: Tensor, have, want, size, axis: int, slope: float, constant: float, fill: Sequence[int]) -> Tensor:
    """Frames (T,H,W,C), uint8, that show the part ``have`` of pictures -> the part ``want`` (T,h,w,C) of these when
    each line along ``axis`` (1: columns, 2: rows) has moved towards its start.

    Line i moves by slope · (i + ½) + constant pixels; ``fill`` (C) shows where it came from outside. Parts are boxes
    (top, left, bottom, right), ``size`` that of the whole picture; ``have`` holds the lines of ``want`` and no other,
    and of each line whatever is needed.

    As Pillow's bicubic AFFINE transform, bit by bit: out(x) = cubic(in, x + shift), with Keys' cubic of a = −1, beyond
    the edge the pixel at the edge, in double precision, cut (not rounded) to bytes.
    """
    along, across = (0, 1) if axis == 1 else (1, 0)  # where boxes keep the axis of a line, and that of their order
    lines = np.arange(want[across], want[across + 2])
    places = np.arange(want[along], want[along + 2])
    # where pixels come from, (lines, places), rounded as Pillow rounds it
    origin = places + 0.5 + (slope * (lines + 0.5))[:, None] + constant
    whole = np.floor(slope * (lines + 0.5) + constant).astype(np.int64)
    part = (origin - 0.5) - (places + whole[:, None])
    outside = (origin < 0) | (origin >= size[along + 2])
    if axis == 1:
        part, outside = part.T, outside.T
    part = torch.from_numpy(part)[..., None].expand(*part.shape, frames.shape[-1]).contiguous()
    out = torch.empty(len(frames), *part.shape, dtype=torch.uint8)
    straight = _straighten(frames.numpy(), whole - 1 + want[along] - have[along], len(places) + 3, axis)
    for frame, pixels in zip(out, torch.from_numpy(straight), strict=True):  # one at a time: it stays in the cache
        frame.copy_(_cubic(pixels.to(torch.int16), axis - 1, part))
    if outside.any():
        out[:, torch.from_numpy(outside)] = torch.tensor(fill, dtype=torch.uint8)
    return out


def _straighten(frames: np.ndarray, start: np.ndarray, length: int, axis: int) -> np.ndarray:
    """``length`` pixels of line i from its pixel ``start[i]`` on: all lines side by side need one arithmetic."""
    there = frames.shape[axis]
    start = np.clip(start, -length, there)  # farther out, all is fill
    before, behind = max(0, -start.min()), max(0, start.max() + length - there)
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
    pixel = f"V{shape[-1]}"  # copied as one
    lines, from_lines = (np.swapaxes(array.view(pixel)[..., 0], axis, 2) for array in (straight, frames))
    for i, place in enumerate(start):
        lines[:, i] = from_lines[:, i, place : place + length]
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
