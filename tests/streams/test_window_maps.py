"""Maps of pairs of frames, put together for windows, are those of each window."""

import numpy as np
import pytest
import torch

from evl.models.crossframe import neighbor_maps
from evl.streams.window_maps import window_maps


@pytest.mark.parametrize("places", [[[0, 1, 2], [1, 2, 3], [2, 3, 4]], [[0, 2, 4], [1, 3, 4], [4, 4, 4]], [[3]]])
@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("grid", [(2, 3), (9, 9)])
def test_as_of_each_window_alone(places, num_crops, grid):
    places = np.array(places)
    query, key = torch.randn(2, 5, num_crops, 1 + grid[0] * grid[1], 2, 4)
    got = window_maps(query, key, places, grid, torch.float32)
    clips = [part[torch.from_numpy(places)].transpose(1, 2).flatten(0, 1) for part in (query, key)]
    for one, wanted in zip(got, neighbor_maps(*clips, grid, torch.float32), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-7)
