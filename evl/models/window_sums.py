"""The local temporal module for frames of a long video: its sums are made once for all windows that have them.

    G(f, g, h) = g + b + w1·g + U(f, g) + V(g, h)
    U(f, g) = w0·f + the map of g to f, read through the table ``before``      the frame before
    V(g, h) = w2·h + the map of g to h, read through the table ``after``       the frame after

for frames f, g, h that follow each other in a window. The first and the last frame of a window miss a neighbor, and its
term. So each pair of frames is computed once, and with windows at each sampled frame three G per frame are added up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evl.models.attention import token_moments, vector_products
from evl.models.crossframe import add_one_side, maps_between
from evl.models.kept import Kept
from evl.models.temporal import LocalTemporalModule

MISSING = -1  # the number of a neighbor that a frame does not have


@dataclass(frozen=True)
class WindowSums:
    """Sums G, and which of them each window has.

    ``tokens`` (n,L,D): the sums, with ``mean`` and ``variance`` (n,L) over D. ``more_variance`` (n,T,L): what the
    position of frame t adds to the variance; None without positions. ``places`` (B,T): those of each window.
    """

    tokens: Tensor
    mean: Tensor
    variance: Tensor
    more_variance: Tensor | None
    places: np.ndarray

    def of_frames(self, part: Tensor, t: int) -> Tensor:
        """The rows (B,…) of ``part`` that are frame t of each window: a view, where they follow each other."""
        places = self.places[:, t]
        if (np.diff(places) == 1).all():
            return part[int(places[0]) : int(places[-1]) + 1]
        return part[torch.from_numpy(places).to(part.device)]


class SumsOfWindows:
    """Makes the sums of windows with a temporal module. Those of the last call are kept for the next one."""

    def __init__(self, temporal: LocalTemporalModule):
        self.temporal = temporal
        self.reads_neighbors = temporal.conv is not None or temporal.cross_frame is not None
        self._pairs, self._sums = Kept(), Kept()

    def of(self, tokens: Tensor, query: Tensor, key: Tensor, numbers: np.ndarray, places: np.ndarray) -> WindowSums:
        """tokens (F,L,D), query and key (F,L,N,K) of F frames with rising ``numbers``. ``places`` (B,T): the frames of
        each window. Raises ValueError for windows of another number of frames than the module was made for."""
        position = self.temporal.position
        if position is not None and places.shape[1] != len(position):
            raise ValueError(f"windows of {places.shape[1]} frames, but this decoder was made for {len(position)}")
        frames = numbers[places]  # (B,T)
        missing = np.full_like(frames[:, :1], MISSING)
        before = np.concatenate([missing, frames[:, :-1]], 1)
        after = np.concatenate([frames[:, 1:], missing], 1)
        rows = {number: place for place, number in enumerate(numbers.tolist())}
        pairs: dict[tuple[int, ...], int] = {}
        ends: list[Tensor] = []
        if self.reads_neighbors and frames.shape[1] > 1:
            wanted = np.unique(np.stack([frames[:, :-1], frames[:, 1:]], -1).reshape(-1, 2), axis=0)
            ends = self._pairs.of(wanted, lambda new: self._ends(tokens, query, key, _rows(new, rows)))
            pairs = {pair: place for place, pair in enumerate(map(tuple, wanted.tolist()))}
        else:
            before, after = np.full_like(frames, MISSING), np.full_like(frames, MISSING)
        # first by which neighbors there are, so that the sums of windows that follow each other do so, too
        kind = 2 * (before == MISSING) + (after == MISSING)
        threes, which = np.unique(
            np.stack([kind, before, frames, after], -1).reshape(-1, 4), axis=0, return_inverse=True
        )
        sums = self._sums.of(threes, lambda new: self._added(tokens, new[:, 1:].tolist(), rows, pairs, ends))
        more = sums[3] if position is not None else None
        return WindowSums(*sums[:3], more, which.reshape(frames.shape))

    def _ends(self, tokens: Tensor, query: Tensor, key: Tensor, pairs: np.ndarray) -> list[Tensor]:
        """U and V (n,L,D) of pairs of frames that are at ``pairs`` (n,2)."""
        temporal, sides = self.temporal, ((0, 1), (1, 0))  # (the frame that is looked at, the frame that looks)
        found = []
        for seen, looking in sides:
            if temporal.conv is None:
                side = tokens.new_zeros(len(pairs), *tokens.shape[1:])
            else:
                kernel = temporal.conv.conv.weight[:, 0, 0 if seen == 0 else 2]
                side = tokens[pairs[:, seen].tolist()] * kernel.to(tokens.dtype)
            if temporal.cross_frame is not None:
                grid = temporal.cross_frame.grid
                table = temporal.cross_frame.before if seen == 0 else temporal.cross_frame.after
                places = (pairs[:, looking].tolist(), pairs[:, seen].tolist())
                maps = maps_between(query, key, *places, grid, tokens.dtype)
                add_one_side(side[:, None], maps, table, grid)
            found.append(side)
        return found

    def _added(
        self,
        tokens: Tensor,
        threes: list[list[int]],
        rows: dict[int, int],
        pairs: dict[tuple[int, ...], int],
        ends: list[Tensor],
    ) -> list[Tensor]:
        """G (n,L,D) of frames with their neighbors, its mean and variance (n,L), and what positions add to that."""
        sums = tokens[[rows[frame] for _, frame, _ in threes]]
        if (conv := self.temporal.conv) is not None:
            here = (1 + conv.conv.weight[:, 0, 1]).to(tokens.dtype)
            sums = torch.addcmul(conv.conv.bias.to(tokens.dtype), sums, here)
        both = (
            [(place, pairs[a, b]) for place, (a, b, _) in enumerate(threes) if a != MISSING],
            [(place, pairs[b, c]) for place, (_, b, c) in enumerate(threes) if c != MISSING],
        )
        for end, chosen in zip(ends, both, strict=False):
            if chosen:
                places, own = (torch.tensor(one, device=tokens.device) for one in zip(*chosen, strict=True))
                sums.index_add_(0, places, end[own])
        mean, variance = token_moments(sums)
        found = [sums, mean, variance]
        if self.temporal.position is not None:
            position = self.temporal.position.to(torch.promote_types(tokens.dtype, torch.float32))
            centered = position - position.mean(-1, keepdim=True)
            along = vector_products(centered.expand(len(sums), -1, -1), sums, mean)  # (n,T,L)
            found.append((2 * along + centered.square().sum(-1)[:, None]) / tokens.shape[-1])
        return found


def _rows(numbers: np.ndarray, rows: dict[int, int]) -> np.ndarray:
    return np.array([[rows[number] for number in pair] for pair in numbers.tolist()], np.int64).reshape(-1, 2)
