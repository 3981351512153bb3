"""What the decoder looked at, against the plain way to compute it."""

import random

import pytest
import torch
from torch import nn

import evl
from evl.bench.twin import plain_attention, plain_mlp, plain_temporal
from evl.config import RunConfig, replace
from evl.errors import ConfigError
from evl.inference import explain
from evl.saving import build_classifier
from tests.helpers import assert_close


def make(model=(), *, image_size=24, num_frames=3):
    """An evaluation-mode classifier, every parameter of whose decoder and head is set, on the embedded backbone."""
    seed = random.randrange(1 << 30)
    print("seed", seed)  # pytest shows it when a test fails
    torch.manual_seed(seed)
    settings = {"decoder": "evl", "taps": "last 2", "mlp_dropout": 0.5, "head_dropout": 0.5}
    config = replace(
        RunConfig(),
        backbone={"image_size": image_size},
        model=settings,
        clip={"num_frames": num_frames, "stride": 2},
    )
    config = replace(config, model=dict(model))
    classifier = build_classifier(config, ["a", "b", "c"])
    for name, parameter in classifier.named_parameters():
        if not name.startswith("backbone."):
            nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.15)
    return classifier.eval()


def plain_weights(attention, query, tokens):
    """(B,Q,D) over normalised tokens (B,S,D) -> (B,S): mean over heads and queries of each head's softmax."""
    q, k = attention.q_proj(query), attention.k_proj(tokens)
    heads = []
    for part in torch.arange(q.shape[-1]).chunk(attention.num_heads):
        heads.append((q[..., part] @ k[..., part].mT / len(part) ** 0.5).softmax(-1))
    return torch.stack(heads, 1).mean((1, 2))


@torch.no_grad()
def plain_shares(decoder, features):
    """M × (B,T·L) of an EVL decoder, term by term."""
    x, shares = decoder.query_token.expand(len(features[0].tokens), -1, -1), []
    for layer, one in zip(decoder.layers, features, strict=True):
        y = layer.norm_tokens(plain_temporal(layer.temporal, one).flatten(1, 2))
        shares.append(plain_weights(layer.attention, layer.norm_query(x), y))
        x = x + plain_attention(layer.attention, layer.norm_query(x), y)
        x = x + plain_mlp(layer.mlp, layer.norm_mlp(x))
    return shares


@pytest.mark.parametrize(
    ("batch", "sizes", "model"),
    [
        (1, {"image_size": 24, "num_frames": 3}, {}),
        (3, {"image_size": 40, "num_frames": 1}, {"num_heads": 4, "taps": "all"}),
        (2, {"image_size": 32, "num_frames": 5}, {"num_queries": 3, "qkv_width": 64, "query_init": "normal"}),
        (2, {"image_size": 8, "num_frames": 2}, {"temporal_conv": False, "temporal_position": False, "taps": [1, 3]}),
    ],
)
def test_equals_the_plain_form(one_thread, batch, sizes, model):
    model = make(model, **sizes)
    side, num_frames = sizes["image_size"] // 8, sizes["num_frames"]
    clips = torch.randn(batch, num_frames, 3, sizes["image_size"], sizes["image_size"])
    with torch.no_grad():
        logits, features = model(clips), model.features(clips)
    wanted = plain_shares(model.decoder, features)
    for _ in range(2):  # calling twice changes nothing
        got = explain(model, clips)
        assert torch.equal(got.logits, logits)
        assert got.attention.shape == (len(model.decoder.layers), batch, num_frames, side, side)
        for share, attention, prefix_share in zip(wanted, got.attention, got.prefix_share, strict=True):
            share = share.unflatten(-1, (num_frames, -1))  # one class token a frame, then patches
            assert_close(attention.flatten(-2), share[..., 1:])
            assert_close(prefix_share, share[..., 0].sum(-1))
        assert_close(got.attention.sum((-3, -2, -1)) + got.prefix_share, torch.ones(len(wanted), batch))
    assert got.attention.std() > 0.01 * got.attention.mean()


@pytest.mark.parametrize("blocks", [1, 3])
def test_of_the_attentive_probe_it_is_the_readout(one_thread, blocks):
    model = make({"decoder": "attentive", "probe_blocks": blocks})
    clips, seen = torch.randn(2, 3, 3, 24, 24), []
    probe = model.decoder
    hook = probe.norm_mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    got = explain(model, clips)
    hook.remove()
    assert got.attention.shape == (1, 2, 3, 3, 3)
    # what was read is what these weights gather: one head's values, weighed, are the readout before its residual
    read = seen[0] - probe.query_token
    tokens = []
    hook = probe.attention.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[1]))
    with torch.no_grad():
        assert torch.equal(got.logits, model(clips))
        hook.remove()
        y = probe.norm_tokens(tokens[0])
        share = plain_weights(probe.attention, probe.query_token.expand(2, -1, -1), y)
        assert_close(read, plain_attention(probe.attention, probe.query_token.expand(2, -1, -1), y))
    assert_close(got.attention[0].flatten(-2), share.unflatten(-1, (3, -1))[..., 1:])
    assert_close(got.prefix_share[0], share.unflatten(-1, (3, -1))[..., 0].sum(-1))


def test_training_mode_hooks_and_gradients_are_left_as_they_were(one_thread):
    model = make()
    clips = torch.randn(2, 3, 3, 24, 24)
    logits = explain(model, clips).logits
    model.train()
    assert torch.equal(explain(model, clips).logits, logits), "dropout must be off"
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.decoder.modules())
    assert not logits.requires_grad
    with pytest.raises(ValueError, match="frames"):
        explain(model, clips[:, :2])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.decoder.modules())


def test_type_follows_the_input(one_thread):
    model = make().double()
    clips = torch.randn(1, 3, 3, 24, 24, dtype=torch.float64)
    double = explain(model, clips)
    assert {double.logits.dtype, double.attention.dtype, double.prefix_share.dtype} == {torch.float64}
    single = explain(model.float(), clips.float())
    assert single.attention.dtype == torch.float32
    assert_close(single.attention.double(), double.attention, relative=1e-4)
    narrow = explain(model.bfloat16(), clips.bfloat16())
    assert (narrow.logits.dtype, narrow.attention.dtype) == (torch.bfloat16, torch.float32)
    assert_close(narrow.attention.double(), double.attention, relative=0.1)


def test_a_compiled_model_is_explained_too(one_thread):
    model = make()
    clips = torch.randn(2, 3, 3, 24, 24)
    wanted = explain(model, clips)
    model.decoder.compile(backend="eager")
    with torch.no_grad():
        model(clips)
    got = explain(model, clips)
    assert torch.equal(got.attention, wanted.attention)
    assert torch.equal(got.logits, wanted.logits)


@pytest.mark.parametrize("decoder", ["linear", "side"])
def test_of_a_mean_it_is_what_raises_the_highest_logit(one_thread, decoder):
    model = make({"decoder": decoder}).double()
    clips = torch.randn(2, 3, 3, 24, 24, dtype=torch.float64)
    got = explain(model, clips)
    assert got.attention.shape == (1, 2, 3, 3, 3)
    assert not any(module._forward_hooks for module in model.decoder.modules())
    assert not got.logits.requires_grad
    assert not got.prefix_share.any()
    with torch.no_grad():
        features = model.features(clips)
        assert_close(model.classify(features), got.logits)
        maps = [one.tokens for one in features]
        s = maps[-1][:, :, 1:] if decoder == "linear" else model.decoder.run_layers(maps)[0]
    weights = torch.full(s.shape[:3], 1 / 27, dtype=s.dtype, requires_grad=True)  # of each patch in the mean
    mean = (weights[..., None] * s).sum((1, 2))
    model.head(mean if decoder == "linear" else model.decoder.norm(mean)).amax(-1).sum().backward()
    wanted = weights.grad.clamp(min=0)
    assert_close(got.attention[0].flatten(-2), wanted / wanted.sum((1, 2), keepdim=True))
    assert 0.2 < (got.attention > 0).double().mean() < 0.8


def test_a_read_out_that_is_not_evls_is_refused(one_thread):
    model = make({"decoder": "linear"})
    model.decoder.mean = nn.Identity()
    with pytest.raises(ConfigError, match=r"MeanPool.*no attention.*no mean"):
        evl.explain(model, torch.randn(1, 3, 3, 24, 24))
