"""Zero-shot logits against their equation, and beside a decoder."""

import pytest
import torch
from torch import nn

from evl.models import Classifier, ClassifierHead, MeanPool, ZeroShot
from evl.types import LayerFeatures
from tests.helpers import assert_close


def unit(x):
    return x / x.pow(2).sum(-1, keepdim=True).sqrt()


class FirstToken(nn.Module):
    """An embedding: the first token through a matrix."""

    def __init__(self, width=6, out=5):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(width, out))

    def forward(self, tokens):
        return unit(tokens[:, 0].to(self.matrix.dtype) @ self.matrix)


def make(num_classes=3):
    return ZeroShot(FirstToken(), unit(torch.randn(num_classes, 5)), torch.tensor(7.0), torch.tensor(-2.0))


def features(batch=2, frames=3):
    tokens = torch.randn(batch, frames, 4, 6)
    return [LayerFeatures(torch.randn_like(tokens), None, None), LayerFeatures(tokens, None, None)]


@pytest.mark.parametrize(("batch", "frames"), [(2, 3), (1, 1), (1, 5)])
def test_logits_are_the_equation(batch, frames):
    zero_shot, given = make(), features(batch, frames)
    wanted = torch.empty(batch, 3)
    for b in range(batch):
        mean = sum(unit(given[-1].tokens[b, t, 0] @ zero_shot.embedding.matrix) for t in range(frames)) / frames
        for y in range(3):
            wanted[b, y] = 7 * (unit(mean) * zero_shot.text[y]).sum() - 2
    for _ in range(2):
        assert_close(zero_shot(given), wanted)


def test_it_is_frozen_and_reads_narrow_tokens_in_its_own_type():
    zero_shot, given = make(), features()
    zero_shot.train()
    zero_shot.requires_grad_()
    assert not zero_shot.training
    assert not any(parameter.requires_grad for parameter in zero_shot.parameters())
    narrow = [LayerFeatures(one.tokens.bfloat16(), None, None) for one in given]
    assert zero_shot(narrow).dtype == torch.float32
    assert_close(zero_shot(narrow), zero_shot(given), relative=2e-2)


def test_beside_a_decoder_it_adds_and_stays_as_it_is():
    class Backbone(nn.Module):
        def forward(self, clips):
            return given

    given = features()
    model = Classifier(Backbone(), MeanPool(6, 1), ClassifierHead(6, 3), zero_shot=make())
    clips = torch.zeros(2, 3, 3, 8, 8)
    assert_close(model(clips), model.head(model.decoder(given)) + model.zero_shot(given))
    before = {name: value.clone() for name, value in model.zero_shot.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.1)
    model.train()
    model(clips).logsumexp(-1).sum().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.zero_shot.state_dict().items())
    state = model.trainable_state()
    assert {"zero_shot.text", "zero_shot.embedding.matrix", "head.linear.weight"} <= state.keys()
    other = Classifier(Backbone(), MeanPool(6, 1), ClassifierHead(6, 3), zero_shot=make())
    assert not torch.equal(other(clips), model(clips))
    other.load_trainable_state(state)
    assert torch.equal(other(clips), model(clips))
    del state["zero_shot.text"]
    with pytest.raises(RuntimeError, match="text"):
        other.load_trainable_state(state)
