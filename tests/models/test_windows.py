"""Windows that share frames: the decoder's vectors are those of each window's own clip."""

import numpy as np
import pytest
import torch

from evl.models.crossframe import maps_between, neighbor_maps
from evl.models.decoder import EVLDecoder
from evl.models.windows import WindowDecoder, WindowFeatures

PARTS = {
    "all": {},
    "no convolution": {"temporal_conv": False},
    "no position": {"temporal_position": False},
    "no maps": {"cross_frame": False},
    "position only": {"cross_frame": False, "temporal_conv": False},
    "two queries": {"num_queries": 2},
}


def features_of(num_frames, grid, dtype=torch.float32):
    num_tokens = 1 + grid[0] * grid[1]
    shapes = (num_frames, num_tokens, 16), *[(num_frames, num_tokens, 2, 8)] * 2
    return [[(torch.randn(shape) + 0.5).to(dtype) for shape in shapes] for _ in range(2)]


def decoder_of(num_frames, grid, **parts):
    decoder = EVLDecoder(16, 2, num_frames=num_frames, grid=grid, num_heads=4, **parts)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return decoder


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("grid", [(2, 3), (9, 9)])
def test_as_the_clips_of_the_windows(parts, num_frames, grid):
    torch.manual_seed(0)
    decoder, features = decoder_of(num_frames, grid, **PARTS[parts]), features_of(14, grid)
    reader = WindowDecoder(decoder)
    places = np.concatenate([np.arange(3)[:, None] + np.arange(num_frames), [[2] * num_frames]])
    if num_frames == 5:
        places = np.concatenate([places, [[0, 2, 4, 5, 5]]])
    for first in (0, 2, 6):  # what windows of two calls have in common is kept
        ring = slice(first, first + 8)
        given = [
            WindowFeatures(*(part[ring] for part in one), np.arange(14)[ring], np.minimum(places, 6))
            for one in features
        ]
        with torch.no_grad():
            wanted = decoder([one.clips() for one in given])
        torch.testing.assert_close(reader(given), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_each_pair_of_frames_is_mapped_once(monkeypatch):
    from evl.models import window_sums

    decoder, features, pairs = decoder_of(4, (2, 3)), features_of(14, (2, 3)), []

    def counted(query, key, looking, seen, *rest):
        pairs.extend((float(query[a].sum()), float(key[b].sum())) for a, b in zip(looking, seen, strict=True))
        return maps_between(query, key, looking, seen, *rest)

    monkeypatch.setattr(window_sums, "maps_between", counted)
    reader, places = WindowDecoder(decoder), np.arange(4)[:, None] + np.arange(4)
    for first in (0, 4, 7):
        ring = slice(first, first + 7)
        reader([WindowFeatures(*(part[ring] for part in one), np.arange(14)[ring], places) for one in features])
    assert len(pairs) == len(set(pairs)) == 2 * 2 * 13  # layers, directions, pairs of 14 frames


def test_half_precision():
    torch.manual_seed(0)
    decoder, features = decoder_of(3, (2, 3)), features_of(6, (2, 3), torch.bfloat16)
    given = [WindowFeatures(*one, np.arange(6), np.arange(4)[:, None] + np.arange(3)) for one in features]
    with torch.no_grad():
        wanted = decoder([one.clips() for one in given])
    assert (WindowDecoder(decoder)(given) - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("grid", [(2, 3), (14, 14)])
def test_maps_between_two_frames(grid):
    query, key = torch.randn(2, 3, 1 + grid[0] * grid[1], 2, 4)
    got = maps_between(query, key, [1, 0, 2], [0, 1, 1], grid, torch.float32)
    wanted = neighbor_maps(query[None], key[None], grid, torch.float32)
    for one, whole in zip(got, wanted, strict=True):
        for pair, (frame, side) in enumerate([(1, 0), (0, 1), (2, 0)]):
            torch.testing.assert_close(one[:, pair, 0, ..., 0, :], whole[:, 0, frame, ..., side, :])


def test_decoders_whose_windows_share_nothing():
    assert not WindowDecoder.can_read(torch.nn.Linear(2, 2))
    assert not WindowDecoder.can_read(decoder_of(2, (2, 3), num_queries=20))  # projects keys and values
