"""Windows that share frames, read by a side network: its vectors are those of each window's own clip."""

import numpy as np
import pytest
import torch

from evl.models.side import SideDecoder
from evl.models.side_windows import SideWindowDecoder
from evl.models.windows import WindowFeatures

FORMS = {
    "channel": {},
    "batch": {"norm": "batch"},
    "causal": {"causal": True},
    "query": {"readout": "query"},
}


def decoder_of(**form):
    decoder = SideDecoder(16, 2, grid=(2, 3), side_width=6, **form).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
        for layer in decoder.modules():
            if hasattr(layer, "running_var"):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
    return decoder


def features_of(num_frames, num_prefix, dtype=torch.float32):
    maps = [(2 * torch.randn(num_frames, num_prefix + 6, 16) + 0.5).to(dtype) for _ in range(3)]
    return [(one, one.new_empty(*one.shape[:2], 0, 8), one.new_empty(*one.shape[:2], 0, 8)) for one in maps]


def given(features, numbers, places):
    """A ring of the frames ``numbers``, and windows of ``places`` in it."""
    return [WindowFeatures(*(part[numbers] for part in one), np.asarray(numbers), places) for one in features]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_as_the_clips_of_the_windows(form, num_frames, num_prefix):
    torch.manual_seed(0)
    decoder, features = decoder_of(**FORMS[form]), features_of(14, num_prefix)
    reader = SideWindowDecoder(decoder)
    places = np.concatenate([np.arange(3)[:, None] + np.arange(num_frames), [[2] * num_frames]])
    if num_frames == 5:
        places = np.concatenate([places, [[0, 2, 4, 5, 5], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]])
    if num_frames == 2:
        places = np.concatenate([places, [[0, 3]]])  # as crops of frames, which lie between each other
    mixed = np.random.default_rng(0).permutation(8)
    rings = [np.arange(8), np.arange(2, 10), np.arange(6, 14), 6 + mixed]  # the last as of several live sources
    for ring in rings:
        own = given(features, ring, np.minimum(places, 6))
        with torch.no_grad():
            wanted = decoder([one.clips() for one in own])
        torch.testing.assert_close(reader(own), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_each_frame_is_read_once(monkeypatch):
    decoder, features, seen = decoder_of(), features_of(14, 1), []
    read = decoder.read_taps

    def counted(tokens):
        seen.extend(tokens[0].sum((0, 2, 3)).tolist())
        return read(tokens)

    monkeypatch.setattr(decoder, "read_taps", counted)
    reader, places = SideWindowDecoder(decoder), np.arange(4)[:, None] + np.arange(4)
    for first in (0, 4, 7):
        reader(given(features, np.arange(first, first + 7), places))
    assert len(seen) == len(set(seen)) == 14


def test_half_precision():
    torch.manual_seed(0)
    decoder, features = decoder_of(), features_of(6, 1, torch.bfloat16)
    own = given(features, np.arange(6), np.arange(4)[:, None] + np.arange(3))
    with torch.no_grad():
        wanted = decoder([one.clips() for one in own]).float()
    assert (SideWindowDecoder(decoder)(own).float() - wanted).norm() < 0.03 * wanted.norm()


def test_others_are_not_read():
    assert not SideWindowDecoder.can_read(torch.nn.Linear(2, 2))
