"""Trained parameters at another size: more or fewer frames, a finer or coarser grid of patches.

A frame of a clip stands for the middle of its part of the time, and an offset in patches for a distance in the
picture. Values in between are linear; where the new reach further than the old, the outermost stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Grid = tuple[int, int]


def resized_time(table: Tensor, num_frames: int) -> Tensor:
    """A table (T,D) of temporal positions for another number of frames: frame t stands at (t + ½) / T."""
    return _weights(_middles(num_frames, len(table)), len(table), table) @ table


def resized_offsets(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A table ((2h−1)(2w−1), D) of relative positions for another grid.

    The same part of the picture is h' / h times as many patches away: offset d of the new grid reads d·h / h' of the
    old one, and offset 0 stays offset 0.
    """
    rows, columns = (
        _weights(_offsets(to, of), 2 * of - 1, table) for of, to in zip(old, new, strict=True)
    )  # (2h'−1, 2h−1), (2w'−1, 2w−1)
    grid = table.unflatten(0, (2 * old[0] - 1, 2 * old[1] - 1))
    return torch.einsum("ai,bj,ijd->abd", rows, columns, grid).flatten(0, 1)


def resized_grid(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A table (h·w, D) of positions in the picture for another grid: patch i stands at (i + ½) / h."""
    rows, columns = (_weights(_middles(to, of), of, table) for of, to in zip(old, new, strict=True))
    return torch.einsum("ai,bj,ijd->abd", rows, columns, table.unflatten(0, old)).flatten(0, 1)


def _middles(new: int, old: int) -> Tensor:
    return (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5


def _offsets(new: int, old: int) -> Tensor:
    return torch.arange(1 - new, new, dtype=torch.float64) * (old / new) + (old - 1)


def _weights(places: Tensor, size: int, like: Tensor) -> Tensor:
    """(n, size): row i reads, between its two neighbors, the place ``places[i]`` of a table of ``size`` rows."""
    places = places.clamp(0, size - 1)
    distance = (places[:, None] - torch.arange(size)).abs()
    return (1 - distance).clamp_min(0).to(like)


_SIZED = (  # what depends on frames or grid; everything else must fit as it is
    (r"layers\.\d+\.temporal\.position", "time"),
    (r"layers\.\d+\.temporal\.cross_frame\.(before|after)", "offsets"),
)


def resized_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], old: Grid, new: Grid) -> dict[str, Tensor]:
    """A decoder's ``state`` with tables as long as those of ``own``, the state of a decoder of the wanted size."""
    resized = dict(state)
    for name, value in state.items():
        if name not in own or value.ndim != 2 or value.shape[1:] != own[name].shape[1:]:
            continue
        kind = next((kind for pattern, kind in _SIZED if re.fullmatch(pattern, name)), None)
        if kind == "time" and len(value) != len(own[name]):
            resized[name] = resized_time(value, len(own[name]))
        elif kind == "offsets" and old != new and len(value) == (2 * old[0] - 1) * (2 * old[1] - 1):
            resized[name] = resized_offsets(value, old, new)
    return resized
