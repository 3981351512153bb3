"""The decoder against numbers of the original release, outputs and gradients."""

import pytest
import torch

import evl
from evl.errors import CheckpointError
from evl.models.decoder import release_key_to_own
from evl.types import LayerFeatures
from tests.goldens import DECODERS, load_decoder
from tests.helpers import assert_close


def test_all_cases_are_here():
    assert len(DECODERS) == 7


@pytest.mark.parametrize("name", DECODERS)
def test_outputs_and_gradients_equal_the_release(name):
    decoder, features, tensors, config = load_decoder(name)
    for _ in range(2):  # calling twice changes nothing
        decoder.zero_grad()
        output = decoder(features)
        assert_close(output, tensors["output"][:, 0])
        (output * tensors["grad_output"][:, 0]).sum().backward()
    assert {layer.temporal.conv is not None for layer in decoder.layers} == {config["temporal_conv"]}
    expected = {release_key_to_own(k.removeprefix("grad.")): v for k, v in tensors.items() if k.startswith("grad.")}
    assert len(expected) > 30
    largest = max(gradient.abs().max() for gradient in expected.values())
    for key, parameter in decoder.named_parameters():
        if key in expected:
            assert_close(parameter.grad, expected[key].reshape(parameter.shape), floor=1e-6 * largest)
        else:  # a gradient the reference has not is zero by symmetry
            assert parameter.grad is None or parameter.grad.abs().max() < 1e-6 * largest, key


def random_features(num_layers, *, b, t, h, w, prefix, d, n, k, dtype=torch.float32):
    def tokens(*last):
        return torch.randn(b, t, prefix + h * w, *last, dtype=dtype)

    return [LayerFeatures(tokens(d), tokens(n, k), tokens(n, k)) for _ in range(num_layers)]


def loops(decoder, features):
    """docs/method.md sections 3 and 4 with loops over everything: slow, and hard to get wrong."""
    x = decoder.query_token.expand(len(features[0].tokens), -1, -1)
    for layer, (tokens, query, key) in zip(decoder.layers, features, strict=True):
        _, num_frames, num_tokens, _ = tokens.shape
        a = tokens.clone()
        temporal = layer.temporal
        for t in range(num_frames):
            for tap in range(3):
                s = t + tap - 1
                if temporal.conv is not None and 0 <= s < num_frames:
                    a[:, t] = a[:, t] + tokens[:, s] * temporal.conv.conv.weight[:, 0, tap]
            if temporal.conv is not None:
                a[:, t] = a[:, t] + temporal.conv.conv.bias
            if temporal.position is not None:
                a[:, t] = a[:, t] + temporal.position[t]
            if temporal.cross_frame is None:
                continue
            h, w = temporal.cross_frame.grid
            prefix = num_tokens - h * w
            for s, table in ((t - 1, temporal.cross_frame.before), (t + 1, temporal.cross_frame.after)):
                if not 0 <= s < num_frames:
                    continue
                for p in range(h * w):
                    logits = torch.einsum("bnk,brnk->bnr", query[:, t, prefix + p], key[:, s, prefix:])
                    share = (logits / query.shape[-1] ** 0.5).softmax(-1).mean(1)  # (B,h·w)
                    for r in range(h * w):
                        row, column = p // w - r // w + h - 1, p % w - r % w + w - 1
                        a[:, t, prefix + p] = (
                            a[:, t, prefix + p] + share[:, r, None] * table[row * (2 * w - 1) + column]
                        )
        y = layer.norm_tokens(a.flatten(1, 2))
        attention = layer.attention
        q, k, v = attention.q_proj(layer.norm_query(x)), attention.k_proj(y), attention.v_proj(y)
        heads = []
        for part in torch.arange(q.shape[-1]).chunk(attention.num_heads):
            share = (q[..., part] @ k[..., part].mT / len(part) ** 0.5).softmax(-1)
            heads.append(share @ v[..., part])
        x = x + attention.out_proj(torch.cat(heads, -1))
        hidden = layer.mlp.fc1(layer.norm_mlp(x))
        x = x + layer.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))
    return x[:, 0]


@pytest.mark.parametrize(
    ("b", "t", "h", "w", "prefix", "switches"),
    [
        (1, 1, 2, 3, 1, {}),
        (2, 2, 3, 2, 0, {}),
        (1, 5, 1, 3, 5, {"temporal_conv": False}),
        (3, 4, 2, 2, 2, {"cross_frame": False}),
        (1, 3, 2, 2, 1, {"temporal_position": False}),
    ],
)
def test_equals_plain_loops(b, t, h, w, prefix, switches):
    torch.manual_seed(b * 100 + t)
    decoder = evl.EVLDecoder(12, 2, num_frames=t, grid=(h, w), num_heads=3, **switches).double()
    for parameter in decoder.parameters():  # zero-initialised ones too
        torch.nn.init.normal_(parameter, std=0.3)
    features = random_features(2, b=b, t=t, h=h, w=w, prefix=prefix, d=12, n=2, k=6, dtype=torch.float64)
    output, expected = decoder(features), loops(decoder, features)
    assert_close(output, expected, relative=1e-10)
    direction = torch.randn_like(output)
    parameters = dict(decoder.named_parameters())
    got = torch.autograd.grad((output * direction).sum(), parameters.values(), allow_unused=True)
    want = torch.autograd.grad((expected * direction).sum(), parameters.values(), allow_unused=True)
    for name, one, two in zip(parameters, got, want, strict=True):
        zero = torch.zeros_like(parameters[name])
        assert_close(zero if one is None else one, zero if two is None else two, relative=1e-9, floor=1e-10)


def test_bfloat16_is_near_float32():
    torch.manual_seed(0)
    decoder = evl.EVLDecoder(16, 2, num_frames=3, grid=(2, 2), num_heads=2)
    features = random_features(2, b=2, t=3, h=2, w=2, prefix=1, d=16, n=2, k=8)
    exact = decoder(features)
    narrow = decoder.bfloat16()([LayerFeatures(*(part.bfloat16() for part in one)) for one in features])
    assert narrow.dtype == torch.bfloat16
    assert (narrow - exact).norm() < 2e-2 * exact.norm()


def test_initial_values():
    torch.manual_seed(0)
    decoder = evl.EVLDecoder(64, 1, num_frames=3, grid=(2, 2), query_init="zero")
    layer = decoder.layers[0]
    for zero in (decoder.query_token, layer.temporal.position, layer.temporal.cross_frame.before,
                 layer.temporal.cross_frame.after, layer.attention.k_proj.bias):  # fmt: skip
        assert zero.abs().max() == 0
    assert 0 < layer.mlp.fc1.bias.abs().max() < 1e-5
    bound = (6 / (64 + 256)) ** 0.5  # xavier-uniform
    assert 0.95 * bound < layer.mlp.fc1.weight.abs().max() <= bound
    assert 0.01 < evl.EVLDecoder(64, 1, num_frames=3, grid=(2, 2), query_init="normal").query_token.std() < 0.03


def test_wrong_use_is_told():
    decoder = evl.EVLDecoder(8, 2, num_frames=3, grid=(2, 2), num_heads=2)
    features = random_features(2, b=1, t=3, h=2, w=2, prefix=1, d=8, n=2, k=4)
    with pytest.raises(ValueError, match="1 tapped blocks were given, but the decoder has 2"):
        decoder(features[:1])
    with pytest.raises(ValueError, match="made for 3"):
        decoder(random_features(2, b=1, t=4, h=2, w=2, prefix=1, d=8, n=2, k=4))
    with pytest.raises(CheckpointError, match="not a decoder"):
        evl.EVLDecoder.from_release({}, num_heads=1, num_frames=1, grid=(1, 1))
    with pytest.raises(CheckpointError, match="unexpected key 'other'"):
        evl.EVLDecoder.from_release({"other": torch.zeros(1)}, num_heads=1, num_frames=1, grid=(1, 1))
