"""Features that were kept: what a decoder makes of them is what it makes of live ones."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from evl.errors import RunError
from evl.models import AttentiveProbe, EVLDecoder, MeanPool
from evl.models.crossframe import neighbor_maps, packed_maps, unpacked_maps
from evl.streams.memory import InMemory, extract, of_frames, pooled, threads
from evl.types import EncoderFacts, LayerFeatures
from tests.helpers import assert_close

TEMPORAL = ("temporal_conv", "temporal_position", "cross_frame")


class LiveFeatures:
    """Stands for a backbone of two taps: features that were drawn, clip by clip, and how many came at a time."""

    def __init__(self, n, t=4, grid=(3, 4), prefix=2, width=12, heads=2, head_width=6, scale=1.0):
        tokens = prefix + grid[0] * grid[1]
        self.spec = SimpleNamespace(name="drawn", grid=grid, num_tokens=tokens, width=width)
        self.taps = (2, 3)
        self.facts = EncoderFacts(self.spec, None, self.taps, "")
        self.drawn = [
            LayerFeatures(
                scale * torch.randn(n, t, tokens, width),
                torch.randn(n, t, tokens, heads, head_width),
                torch.randn(n, t, tokens, heads, head_width),
            )
            for _ in self.taps
        ]
        self.clips = torch.arange(n)[:, None, None, None, None].expand(n, t, 3, 2, 2).half()  # which is which

    def __call__(self, clips):
        assert clips.dtype == torch.float32
        return self.of(clips[:, 0, 0, 0, 0].long())

    def of(self, rows):
        return [LayerFeatures(*(part[rows] for part in one)) for one in self.drawn]


@pytest.fixture
def pool(one_thread):
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (2, 13), (7, 6)])
@pytest.mark.parametrize("t", [1, 2, 5])
def test_packed_maps_are_mean_attention_to_the_neighbors_and_come_back(grid, t, one_thread):
    (h, w), b, n, k = grid, 2, 3, 5
    query, key = torch.randn(2, b, t, 1 + h * w, n, k)
    maps = neighbor_maps(query, key, grid, torch.float32)
    packed = packed_maps(maps, torch.float32)
    assert packed.shape == (b, t, h, w, h, 2, w)
    for side, step in enumerate((-1, 1)):
        for i in range(t):
            wanted = torch.zeros(b, h * w, h * w)
            if 0 <= i + step < t:
                scores = torch.einsum("bpnk,bqnk->bnpq", query[:, i, 1:], key[:, i + step, 1:]) / k**0.5
                wanted = scores.softmax(-1).mean(1)
            assert_close(packed[:, i, :, :, :, side].reshape(b, h * w, h * w), wanted, floor=1e-7)
    for back, one in zip(unpacked_maps(packed, torch.float32), maps, strict=True):
        assert torch.equal(back, one)
    for back, one in zip(unpacked_maps(packed_maps(maps, torch.float16), torch.float32), maps, strict=True):
        assert torch.equal(back, one.half().float())


@pytest.mark.parametrize("rows", [[4], [0, 6, 2], [5, 5]])
@pytest.mark.parametrize("off", [(), TEMPORAL, TEMPORAL[:1], TEMPORAL[1:2], TEMPORAL[2:]])
def test_in_float32_logits_and_gradients_are_those_of_live_features(rows, off, pool):
    live = LiveFeatures(7)
    stored = extract(live, live.clips, (), pool, dtype=torch.float32)
    decoder = EVLDecoder(12, 2, num_frames=4, grid=(3, 4), num_heads=3, **dict.fromkeys(off, False))
    for parameter in decoder.parameters():  # the tables of what moves start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    for _ in range(2):  # nothing is changed by use
        assert_same(decoder, stored.batch(rows), live.of(rows))


def test_probes_read_them_too(pool):
    live = LiveFeatures(7)
    stored = extract(live, live.clips, (), pool, dtype=torch.float32)
    probe = AttentiveProbe(12, num_blocks=2, num_heads=2, num_frames=4, grid=(3, 4))
    assert_same(probe, stored.batch([3, 1]), live.of([3, 1]))
    mean = MeanPool(12, 2)
    assert_close(mean(pooled(stored, 2).batch([6, 0])), mean(live.of([6, 0])))
    still = EVLDecoder(12, 2, num_frames=1, grid=(3, 4), cross_frame=False)
    frames = [LayerFeatures(*(torch.stack([part[0, 2:3], part[1, 1:2]]) for part in one)) for one in live.of([6, 0])]
    assert_same(still, of_frames(stored, [1, 0, 0, 0, 0, 0, 2]).batch([6, 0]), frames)


def test_in_sixteen_bits_they_are_live_features_rounded(pool):
    live = LiveFeatures(5)
    stored = extract(live, live.clips, (), pool)
    full = extract(live, live.clips, (), pool, dtype=torch.float32)
    assert stored.num_bytes * 2 == full.num_bytes == 4 * 2 * 5 * 4 * (14 * 12 + 2 * 12 * 12)
    rounded = InMemory(*([x.half().float() for x in some] for some in (full.tokens, full.maps)), live, ())
    decoder = EVLDecoder(12, 2, num_frames=4, grid=(3, 4), num_heads=3)
    assert_same(decoder, stored.batch([2, 0, 4]), rounded.batch([2, 0, 4]), relative=0)
    assert_close(decoder(stored.batch([2, 0, 4])), decoder(live.of([2, 0, 4])), relative=5e-3)
    assert stored.batch([1])[0].tokens.dtype == torch.float32


def test_numbers_that_do_not_fit_are_refused(pool):
    live = LiveFeatures(3, scale=1e5)
    with pytest.raises(RunError, match=r"too large for torch\.float16; keep them as torch\.float32"):
        extract(live, live.clips, (), pool)
    assert extract(live, live.clips, (), pool, dtype=torch.float32).tokens[0].isfinite().all()


def test_threads_compute_alone_and_leave_no_trace():
    before = torch.get_num_threads()

    def interrupted():
        with threads() as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.get_num_threads() == before


def assert_same(decoder, features, wanted_features, relative=1e-5):
    found, wanted = (outputs_and_gradients(decoder, some) for some in (features, wanted_features))
    largest = max(one.abs().max() for one in wanted.values())
    for name, value in wanted.items():
        assert_close(found[name], value, relative=relative, floor=relative * 1e-2 * largest)


def outputs_and_gradients(decoder, features):
    decoder.zero_grad()
    out = decoder(features)
    (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
    return {"out": out.detach()} | {name: p.grad.clone() for name, p in decoder.named_parameters()}
