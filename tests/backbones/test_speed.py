"""What makes a backbone fast changes no feature, or is said to: parts, narrow weights, compile."""

import copy

import pytest
import timm
import torch
from torch import nn

from evl.backbones import create_backbone
from evl.backbones.timm_vit import TimmBackbone
from tests.backbones.test_features import MODELS, PREPROCESSING, randomised
from tests.helpers import assert_close


def backbone_of(name, num_taps=2):
    torch.manual_seed(0)
    return TimmBackbone(randomised(MODELS[name]()), name, PREPROCESSING, taps=num_taps)


def flat(features):
    return [part for one in features for part in one]


@pytest.mark.parametrize("name", list(MODELS))
def test_frames_in_parts_are_the_same_features(name):
    backbone = backbone_of(name)
    clips = torch.randn(2, 5, 3, 24, 40)
    whole = flat(backbone(clips))
    for size in (1, 3, 10):
        backbone.frames_at_once = size
        for one, other in zip(flat(backbone(clips)), whole, strict=True):
            assert_close(one, other)
            assert one.stride()[2:] == other.stride()[2:]  # the same order in memory


def test_queries_of_a_head_lie_together():
    """So that attention maps need no copy: (B,T,L,N,K) in the order B,T,N,L,K."""
    features = backbone_of("CLIP")(torch.randn(1, 2, 3, 24, 40))
    assert features[0].query.transpose(2, 3).is_contiguous()
    assert features[0].key.transpose(2, 3).is_contiguous()


def test_autocast_runs_on_narrow_weights_made_once():
    backbone = backbone_of("CLIP")
    clips = torch.randn(1, 3, 3, 24, 40)
    exact, digest, state = backbone(clips), backbone.weights_hash, set(backbone.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        narrow = backbone(clips)
        kept = backbone.in_type(torch.bfloat16)
        backbone(clips)
    assert backbone.in_type(torch.bfloat16) is kept
    assert all(part.dtype == torch.bfloat16 for part in flat(narrow))
    for one, other in zip(flat(narrow), flat(exact), strict=True):
        assert (one - other).norm() < 2e-2 * other.norm()
    # the weights themselves are as they were, and nothing of the copy is seen outside
    for one, other in zip(flat(backbone(clips)), flat(exact), strict=True):
        assert torch.equal(one, other)
    assert backbone.weights_hash == digest
    assert set(backbone.state_dict()) == state
    assert len(list(backbone.modules())) == len(list(kept.modules()))
    with torch.no_grad():
        changed = {name: value + 0.1 for name, value in backbone.state_dict().items()}
    backbone.load_state_dict(changed)
    assert backbone.in_type(torch.bfloat16) is not kept  # made of the new weights
    assert backbone.double().in_type(torch.float64) is backbone


def test_narrow_weights_follow_the_weights():
    backbone = backbone_of("CLIP")
    clips = torch.randn(1, 2, 3, 24, 40)

    def narrow():
        with torch.autocast("cpu", torch.bfloat16):
            return flat(backbone(clips))

    def is_fresh():
        return all((a - b).norm() < 2e-2 * b.norm() for a, b in zip(narrow(), flat(backbone(clips)), strict=True))

    narrow()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1.5)
    assert is_fresh()
    backbone.vit.load_state_dict({name: value * 0.5 for name, value in backbone.vit.state_dict().items()})
    assert is_fresh()
    copied = copy.deepcopy(backbone)
    assert backbone._narrow is not None
    assert copied._narrow is None


def test_narrow_weights_can_first_be_made_while_predicting():
    backbone = backbone_of("CLIP")
    clips = torch.randn(1, 2, 3, 24, 40)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone(clips)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = backbone(clips)[0].tokens
    assert not tokens.is_inference()
    weight = torch.ones(1, requires_grad=True)
    (tokens.float() * weight).sum().backward()


def test_compiled_backbone_gives_the_same_features(monkeypatch):
    torch._dynamo.reset()
    backbone = backbone_of("CLIP")
    clips = torch.randn(1, 2, 3, 24, 40)
    exact = backbone(clips)
    calls = []
    plain = nn.Module.compile

    def compile_eagerly(module, *args, **kwargs):
        calls.append(type(module).__name__)
        return plain(module, *args, backend="aot_eager", **kwargs)

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    backbone.compile()
    assert calls == ["ResidualAttentionBlock" if "Residual" in calls[0] else "Block", "Mlp", "Mlp"]
    for one, other in zip(flat(backbone(clips)), flat(exact), strict=True):
        assert_close(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        backbone(clips)
    assert len(calls) == 6  # the narrow copy too


def test_a_failing_frame_leaves_nothing_behind(monkeypatch):
    """The mode that watches attention is taken off again, or every later attention would be copied."""
    backbone = backbone_of("CLIP")

    def fail(*args):
        raise RuntimeError("inside a tapped block")

    handle = backbone.vit.blocks[-1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="inside a tapped"):
        backbone(torch.randn(1, 1, 3, 24, 40))
    assert torch._C._len_torch_function_stack() == 0
    handle.remove()
    assert len(backbone(torch.randn(1, 1, 3, 24, 40))) == 2


@pytest.mark.slow
def test_a_real_size():
    vit = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=0)
    backbone = TimmBackbone(vit, "b16", PREPROCESSING, taps=2)
    frames = torch.randn(1, 3, 3, 224, 224)
    with torch.no_grad():
        expected = vit.forward_features(frames[0])
    assert_close(vit.norm(backbone(frames)[-1].tokens[0]), expected, relative=1e-5)


def test_embedded_backbone_in_parts():
    backbone = create_backbone("evl_clip_tiny", 2)
    clips = torch.randn(3, 4, 3, 64, 64)
    whole = flat(backbone(clips))
    backbone.frames_at_once = 5
    for one, other in zip(flat(backbone(clips)), whole, strict=True):
        assert_close(one, other)
