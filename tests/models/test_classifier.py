"""Frozen is enforced, and the baseline is what it says."""

import pytest
import torch

import evl
from evl.models import Classifier, ClassifierHead, MeanPool
from tests.helpers import assert_close


def make_model():
    backbone = evl.create_backbone("evl_clip_tiny", 2)
    spec = backbone.spec
    decoder = evl.EVLDecoder(spec.width, 2, num_frames=2, grid=spec.grid)
    return Classifier(backbone, decoder, ClassifierHead(spec.width, 3), ["a", "b", "c"])


def test_only_decoder_and_head_learn():
    model = make_model()
    assert model.training
    assert not model.backbone.training
    model.train().requires_grad_(True)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    model(torch.randn(2, 2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.trainable_parameters())
    assert {name.split(".")[0] for name in model.trainable_state()} == {"decoder", "head"}
    assert "backbone.vit.blocks.0.attn.qkv.weight" in model.state_dict()
    with pytest.raises(ValueError, match=r"expected \(B,T,C,H,W\)"):
        model(torch.randn(2, 3, 64, 64))


def test_state_travels():
    torch.manual_seed(0)
    one, other = make_model().eval(), make_model().eval()
    clips = torch.randn(1, 2, 3, 64, 64)
    assert not torch.equal(one(clips), other(clips))
    other.load_trainable_state(one.trainable_state())
    assert torch.equal(one(clips), other(clips))


def test_mean_pool():
    backbone = evl.create_backbone("evl_clip_tiny", 1)
    features = backbone(torch.randn(2, 3, 3, 64, 64))
    pooled = MeanPool(128, 1)(features)
    assert_close(pooled, features[-1].tokens[:, :, 1:].reshape(2, -1, 128).mean(1))


@pytest.mark.gpu
def test_cuda_equals_cpu():
    torch.manual_seed(0)
    model = make_model().eval()
    clips = torch.randn(2, 2, 3, 64, 64)
    expected = model(clips)
    assert_close(model.cuda()(clips.cuda()).cpu(), expected, relative=1e-3)
