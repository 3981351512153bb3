"""The side network frame by frame, against the whole clip."""

import pytest
import torch

from tests.helpers import assert_close
from tests.models.test_side import CAUSAL_NORMS, SIZES, frames_of, make


class TestFrameByFrame:
    @pytest.mark.parametrize("norm", CAUSAL_NORMS)
    @pytest.mark.parametrize("readout", ["mean", "query"])
    @pytest.mark.parametrize(("num_frames", "prefix"), [(1, 1), (2, 0), (9, 1), (4, 3)])
    def test_equals_the_whole_clip_after_every_frame(self, norm, readout, num_frames, prefix):
        size = (2, num_frames, 2, 3, prefix, 8, 2)
        decoder, features = make(size, num_layers=3, norm=norm, causal=True, readout=readout)
        decoder(
            [one._replace(tokens=torch.randn_like(one.tokens).repeat(4, 1, 1, 1)) for one in features]
        )  # statistics
        decoder.eval()
        state = decoder.start_state(2)
        for t in range(num_frames):
            before = [tensor.clone() for tensor in state.read]
            vectors, next_state = decoder.step(state, frames_of(features, slice(t, t + 1)))
            assert all(torch.equal(*pair) for pair in zip(before, state.read, strict=True))  # not changed
            state = next_state
            with torch.no_grad():
                assert_close(vectors, decoder(frames_of(features, slice(0, t + 1))))

    @pytest.mark.parametrize("readout", ["mean", "query"])
    def test_several_frames_at_once(self, readout):
        decoder, features = make((1, 7, 2, 2, 1, 8, 2), causal=True, readout=readout)
        decoder.eval()
        state = decoder.start_state(1)
        for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
            vectors, state = decoder.step(state, frames_of(features, part))
        with torch.no_grad():
            assert_close(vectors, decoder(features))

    @pytest.mark.parametrize("readout", ["mean", "query"])
    def test_memory_is_constant(self, readout):
        decoder, features = make((1, 12, 2, 2, 1, 8, 2), causal=True, readout=readout)
        decoder.eval()
        state, sizes = decoder.start_state(1), set()
        for t in range(12):
            _, state = decoder.step(state, frames_of(features, slice(t, t + 1)))
            tensors = [tensor for past in state.past for tensor in past] + list(state.read)
            sizes.add(tuple(tuple(tensor.shape) for tensor in tensors))
        assert len(sizes) == 1

    @pytest.mark.parametrize("readout", ["mean", "query"])
    def test_forgetting(self, readout):
        """The same frame again and again: with a memory, what was before loses its weight."""
        decoder, features = make((1, 60, 2, 2, 1, 8, 2), causal=True, readout=readout)
        decoder.eval()
        last = frames_of(features, slice(9, 10))
        later = [one._replace(tokens=one.tokens.expand(1, 50, -1, -1)) for one in last]

        def after(memory, *parts):
            state = decoder.start_state(1, memory=memory)
            for part in parts:
                vectors, state = decoder.step(state, part)
            return vectors

        first = frames_of(features, slice(0, 9))
        wanted = after(2, later)  # nothing but that frame
        assert_close(after(2, first, later), wanted)
        assert (after(None, first, later) - wanted).abs().max() > 1e-4
        with pytest.raises(ValueError, match=r"memory 0\.5: expected a number of frames from 1"):
            decoder.start_state(1, memory=0.5)

    def test_what_cannot_be(self):
        decoder, _ = make(SIZES[0])
        with pytest.raises(ValueError, match=r"only if it is causal: train with model\.causal=true"):
            decoder.eval().start_state(1)
        decoder, _ = make(SIZES[0], causal=True)
        with pytest.raises(ValueError, match=r"need evaluation mode"):
            decoder.train().start_state(1)


@pytest.mark.parametrize("norm", CAUSAL_NORMS)
def test_a_causal_network_reads_nothing_ahead(norm):
    decoder, features = make((1, 6, 2, 3, 1, 8, 2), norm=norm, causal=True)
    decoder.eval()
    changed = [one._replace(tokens=one.tokens.clone()) for one in features]
    for one in changed:
        one.tokens[:, 4:] += torch.randn_like(one.tokens[:, 4:])
    states = [decoder.run_layers([one.tokens for one in given])[0] for given in (features, changed)]
    assert torch.equal(states[0][:, :4], states[1][:, :4])
    assert (states[0][:, 4:] - states[1][:, 4:]).abs().max() > 0.1
