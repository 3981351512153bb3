"""Resizes trained tables of positions for another number of frames or another grid of patches.

A frame is at the middle of its part of the clip's time. An offset in patches is a distance in the picture. Values
between two old positions are interpolated linearly. Beyond the outermost old position its value is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Grid = tuple[int, int]


def resized_time(table: Tensor, num_frames: int) -> Tensor:
    """Returns a table (T,D) of temporal positions for another number of frames; frame t is at (t + ½) / T."""
    places = (torch.arange(num_frames, dtype=torch.float64) + 0.5) * (len(table) / num_frames) - 0.5
    return _weights(places, len(table), table) @ table


def resized_offsets(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Returns a table ((2h−1)(2w−1), D) of relative positions for another grid.

    The same distance in the picture is h' / h times as many patches. So offset d of the new grid reads offset d·h / h'
    of the old one, and offset 0 stays offset 0.
    """
    rows, columns = (
        _weights(torch.arange(1 - to, to, dtype=torch.float64) * (of / to) + (of - 1), 2 * of - 1, table)
        for of, to in zip(old, new, strict=True)
    )  # (2h'−1, 2h−1), (2w'−1, 2w−1)
    grid = table.unflatten(0, (2 * old[0] - 1, 2 * old[1] - 1))
    return torch.einsum("ai,bj,ijd->abd", rows, columns, grid).flatten(0, 1)


def _weights(places: Tensor, size: int, like: Tensor) -> Tensor:
    """Returns weights (n, size): row i interpolates a table of ``size`` rows at ``places[i]``."""
    places = places.clamp(0, size - 1)
    distance = (places[:, None] - torch.arange(size)).abs()
    return (1 - distance).clamp_min(0).to(like)


def resized_space(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Returns a table (h·w,D) of places in the picture for another grid; patch i of n is at (i + ½) / n."""
    rows, columns = (
        _weights((torch.arange(to, dtype=torch.float64) + 0.5) * (of / to) - 0.5, of, table)
        for of, to in zip(old, new, strict=True)
    )  # (h',h), (w',w)
    return torch.einsum("ai,bj,ijd->abd", rows, columns, table.unflatten(0, old)).flatten(0, 1)


_SIZED = (  # the parameters whose size depends on frames or grid; all others must fit unchanged
    (r"layers\.\d+\.temporal\.position", "time"),
    (r"layers\.\d+\.temporal\.cross_frame\.(before|after)", "offsets"),
    (r"position", "space"),  # of the side network
)


def resized_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], old: Grid, new: Grid) -> dict[str, Tensor]:
    """Returns a decoder's ``state`` with tables resized to those of ``own``, the state of a decoder of the new size.

    ``old`` and ``new`` are the grids of the two decoders.
    """
    resized = dict(state)
    for name, value in state.items():
        if name not in own or value.ndim != 2 or value.shape[1:] != own[name].shape[1:]:
            continue
        kind = next((kind for pattern, kind in _SIZED if re.fullmatch(pattern, name)), None)
        if kind == "time" and len(value) != len(own[name]):
            resized[name] = resized_time(value, len(own[name]))
        elif kind == "offsets" and old != new and len(value) == (2 * old[0] - 1) * (2 * old[1] - 1):
            resized[name] = resized_offsets(value, old, new)
        elif kind == "space" and old != new and len(value) == old[0] * old[1]:
            resized[name] = resized_space(value, tuple(old), tuple(new))
    return resized
