"""Neighbor maps of windows that overlap: the map of two frames is computed once for all windows that have the pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evl.models.crossframe import Grid, empty_maps, neighbor_maps


def window_maps(query: Tensor, key: Tensor, places: np.ndarray, grid: Grid, dtype: torch.dtype) -> list[Tensor]:
    """The maps that ``evl.models.crossframe.neighbor_maps`` returns for windows, with B·C clips of T frames.

    query, key (F,C,L,N,K): those of F frames in C crops. ``places`` (B,T): the frames of each window. The crops of a
    window follow each other. The first and the last frame of a window miss a neighbor there, as in any clip.
    """
    (num_windows, num_frames), num_crops = places.shape, query.shape[1]
    maps = empty_maps(num_windows * num_crops, num_frames, grid, query, dtype)
    if num_frames == 1:
        return maps
    neighbors = np.stack([places[:, :-1], places[:, 1:]], -1)  # (B,T-1,2)
    pairs, which = np.unique(neighbors.reshape(-1, 2), axis=0, return_inverse=True)
    which = which.reshape(num_windows, 1, num_frames - 1) * num_crops + np.arange(num_crops)[:, None]
    chosen = torch.from_numpy(which.reshape(-1, num_frames - 1)).to(query.device)  # (B·C,T-1)
    frames = torch.from_numpy(pairs).to(query.device)
    clips = [part[frames].transpose(1, 2).flatten(0, 1) for part in (query, key)]  # (P·C,2,L,N,K)
    for whole, pair in zip(maps, neighbor_maps(*clips, grid, dtype), strict=True):  # (h,B·C,T,c,h,2,·), (h,P·C,2,…)
        whole[:, :, 1:, ..., 0, :] = pair[:, :, 1, ..., 0, :][:, chosen]  # to the frame before
        whole[:, :, :-1, ..., 1, :] = pair[:, :, 0, ..., 1, :][:, chosen]  # to the frame after
    return maps
