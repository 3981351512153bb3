"""The forms that are fast against the plain twin: outputs and every gradient."""

import copy
import random

import pytest
import torch

import evl
from evl.backbones import create_backbone
from evl.bench.twin import plain_decoder, plain_temporal
from evl.models import Classifier, ClassifierHead, crossframe
from evl.models.attention import CrossAttention, pool_tokens, token_statistics
from evl.models.temporal import LocalTemporalModule
from evl.runtime import cpu as onednn
from evl.types import LayerFeatures
from tests.helpers import assert_close

# b, t, h, w, prefix, N·K of the backbone, decoder's heads and qkv width, what is off
CASES = [
    (2, 8, 7, 7, 1, (2, 8), (2, 16), {}),
    (1, 1, 2, 3, 1, (2, 8), (2, 16), {}),
    (1, 2, 3, 9, 0, (1, 16), (4, 16), {}),
    (3, 5, 4, 17, 5, (4, 4), (1, 8), {}),
    (1, 33, 3, 5, 2, (2, 8), (2, 24), {}),
    (2, 3, 1, 1, 4, (2, 8), (2, 16), {}),
    (2, 4, 1, 11, 1, (2, 8), (2, 16), {}),
    (2, 4, 9, 1, 3, (2, 8), (2, 16), {}),
    (2, 4, 3, 4, 1, (2, 8), (2, 16), {"temporal_conv": False}),
    (1, 3, 5, 3, 1, (2, 8), (2, 16), {"temporal_position": False}),
    (2, 6, 4, 4, 1, (2, 8), (2, 16), {"cross_frame": False}),
    (2, 4, 3, 3, 1, (2, 8), (2, 16), {"temporal_conv": False, "temporal_position": False}),
    (2, 4, 3, 3, 1, (2, 8), (2, 16), {"temporal_conv": False, "cross_frame": False}),
    (2, 4, 3, 3, 1, (2, 8), (2, 16), {"temporal_position": False, "cross_frame": False}),
    (2, 4, 3, 3, 1, (2, 8), (2, 16),
     {"temporal_conv": False, "temporal_position": False, "cross_frame": False}),
]  # fmt: skip


def make(case, *, num_layers=2, num_queries=1, dtype=torch.float32):
    """(decoder with every parameter set, features, direction of the gradient)."""
    b, t, h, w, prefix, (n, k), (heads, qkv_width), switches = case
    seed = random.randrange(1 << 30)
    print("seed", seed)  # pytest shows it when a test fails
    torch.manual_seed(seed)
    width = n * k
    decoder = evl.EVLDecoder(
        width, num_layers, num_frames=t, grid=(h, w), num_heads=heads, qkv_width=qkv_width,
        num_queries=num_queries, **switches,
    )  # fmt: skip
    std = min(0.2, width**-0.5)
    for name, parameter in decoder.named_parameters():  # zero-initialised ones too
        torch.nn.init.normal_(
            parameter, mean=float(name.endswith(("norm_tokens.weight", "norm_query.weight"))), std=std
        )

    def tokens(*last):
        return torch.randn(b, t, prefix + h * w, *last).to(dtype)

    # channels of very different size and a mean that is not zero, as a real residual stream has them
    scale = torch.logspace(-0.5, 0.5, width)
    features = [
        LayerFeatures(((tokens(width) + 0.5) * scale).to(dtype), 2 * tokens(n, k), 2 * tokens(n, k))
        for _ in range(num_layers)
    ]
    return decoder, features, torch.randn(b, width)


def run(call, decoder, features, direction):
    decoder.zero_grad()
    output = call(features)
    (output.float() * direction.to(output.device)).sum().backward()
    return output.detach(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in decoder.named_parameters()
    }


def compare(got, wanted, *, relative):
    """Outputs, and every gradient against its own size, or 1 % of the largest where it is all but nothing.

    The key's bias has none by symmetry: what stands there is rounding.
    """
    assert_close(got[0].double(), wanted[0].double(), relative=relative)
    assert got[1].keys() == wanted[1].keys()
    largest = max(gradient.abs().max().item() for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        floor = (0.1 if name.endswith("k_proj.bias") else 0.01) * relative * largest
        try:
            assert_close(got[1][name].double(), gradient.double(), relative=relative, floor=floor)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def exact(decoder, features, direction):
    """What the twin gives in double precision, so that its own rounding is no part of the comparison."""
    double = copy.deepcopy(decoder).double()
    features = [LayerFeatures(*(part.double() for part in one)) for one in features]
    double.zero_grad()
    output = plain_decoder(double, features)
    (output * direction.double()).sum().backward()
    return output.detach(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in double.named_parameters()
    }


def check(case, device="cpu", change=lambda features: features, **sizes):
    """Two runs of the fast forms against the twin in double; ``change`` is done to the features first."""
    decoder, features, direction = make(case, **sizes)
    wanted = exact(decoder, features, direction)
    decoder.to(device)
    features = change([LayerFeatures(*(part.to(device) for part in one)) for one in features])
    for _ in range(2):  # calling twice changes nothing
        output, gradients = run(decoder, decoder, features, direction)
        compare((output.cpu(), {name: g.cpu() for name, g in gradients.items()}), wanted, relative=1e-5)
    assert all(p.grad is not None for p in decoder.parameters()), "DDP waits for every gradient"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_equal_the_twin(case):
    check(case)


@pytest.mark.parametrize("onednn_taken", [False, True] if onednn.works() else [False])
@pytest.mark.parametrize("budget", [1, 1 << 30])
@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_neither_library_nor_parts_change_the_numbers(monkeypatch, case, onednn_taken, budget):
    monkeypatch.setattr(onednn, "available", lambda: onednn_taken)
    monkeypatch.setitem(crossframe.SCORES_BYTES, "cpu", budget)
    check(case)


@pytest.mark.parametrize("outer", [(1, 0, 2, 3), (0, 2, 1, 3), (3, 1, 0, 2)])
def test_any_order_in_memory(outer):
    """Tokens, queries and keys may lie in memory as they like."""

    def reorder(part):
        order = (*outer, *range(4, part.ndim))
        return part.permute(order).contiguous().permute([order.index(i) for i in range(part.ndim)])

    def change(features):
        return [LayerFeatures(*map(reorder, one)) for one in features]

    assert not change(make(CASES[0])[1])[0].tokens.is_contiguous()
    check(CASES[0], change=change)
    check(CASES[8], change=change)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuda_equals_the_twin(case):
    check(case, device="cuda")


def test_sizes_of_a_real_backbone():
    check((1, 3, 14, 14, 1, (12, 64), (12, 768), {}), num_layers=1)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[4], CASES[8], CASES[10]], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_features_are_near_float32(case, dtype):
    decoder, features, direction = make(case, dtype=dtype)
    wanted = exact(decoder, features, direction)
    got = run(decoder, decoder, features, direction)
    assert got[0].dtype == torch.float32
    # of 1,200 draws the median was off by less than one eps, the worst by four
    tolerance = 8 * torch.finfo(dtype).eps
    assert (got[0] - wanted[0]).norm() < tolerance * wanted[0].norm()
    largest = max(gradient.norm() for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        error = (got[1][name] - gradient).norm() / max(gradient.norm(), 1e-2 * largest)
        assert error < tolerance, f"{name}: {error:.3g}"


@pytest.mark.parametrize("shift", [0, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pooling_of_narrow_tokens_far_from_zero(dtype, shift):
    """A mean many times the deviation must not drown gradients: it drops out of them exactly."""
    torch.manual_seed(0)
    tokens = (torch.randn(2, 50, 64) + shift).to(dtype)
    query, direction = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    query, direction = (x - x.mean(-1, keepdim=True) for x in (query, direction))  # as CrossAttention has them

    def gradients(tokens, query):
        inputs = tokens.clone().requires_grad_(), query.clone().requires_grad_()
        pooled = pool_tokens(*inputs, 1e-5)
        return torch.autograd.grad((pooled * direction.to(pooled.dtype)).sum(), inputs)

    got, wanted = gradients(tokens, query), gradients(tokens.double(), query.double())
    for one, other in zip(got, wanted, strict=True):
        error = (one.double() - other).norm() / other.norm()
        assert error < 4e-2, f"{error:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    decoder, features, direction = make(CASES[0], dtype=dtype)
    plain = run(decoder, decoder, features, direction)

    def with_autocast(features):
        with torch.autocast("cpu", torch.bfloat16):
            return decoder(features)

    output, gradients = run(with_autocast, decoder, features, direction)
    assert torch.equal(output, plain[0])
    assert all(torch.equal(gradients[name], wanted) for name, wanted in plain[1].items())


# two layers of an odd grid; what is on by turns in one layer; inductor has all cases
@pytest.mark.parametrize(("case", "num_layers"), [(CASES[1], 2), (CASES[8], 1), (CASES[10], 1)], ids=str)
def test_compiled_equals_the_twin(case, num_layers):
    torch._dynamo.reset()
    decoder, features, direction = make(case, num_layers=num_layers)
    wanted = exact(decoder, features, direction)
    compiled = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    compare(run(compiled, decoder, features, direction), wanted, relative=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_by_inductor_equals_the_twin(case):
    torch._dynamo.reset()
    decoder, features, direction = make(case)
    wanted = exact(decoder, features, direction)
    compare(run(torch.compile(decoder), decoder, features, direction), wanted, relative=1e-5)


@pytest.mark.parametrize("num_queries", [2, 7, 40])
def test_many_queries_equal_the_twin(num_queries):
    case = (2, 3, 3, 4, 1, (2, 8), (2, 16), {})
    decoder, _, _ = make(case)
    threshold = decoder.layers[0].attention.projects_tokens_from
    assert threshold == 17  # D·W / (N·D − W) = 16·16 / (2·16 − 16) = 16, and more from the next on
    check(case, num_queries=num_queries)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_of_attention_agree(monkeypatch, dtype):
    torch.manual_seed(0)
    attention, norm = CrossAttention(24, 16, 2), torch.nn.LayerNorm(24)
    query, tokens = torch.randn(2, 3, 24), torch.randn(2, 30, 24, dtype=dtype)
    pooled = attention(query, tokens, norm)
    monkeypatch.setattr(CrossAttention, "projects_tokens_from", 1)
    projected = attention(query, tokens, norm)
    assert_close(projected, pooled, relative=1e-5 if dtype == torch.float32 else 2e-2)


def test_one_head_never_projects():
    assert CrossAttention(16, 16, 1).projects_tokens_from == float("inf")


def test_gradients_in_double():
    torch.manual_seed(0)
    features = LayerFeatures(*(torch.randn(2, 3, 7, *last, dtype=torch.float64) for last in [(4,), (2, 2), (2, 2)]))
    module = LocalTemporalModule(4, num_frames=3, grid=(2, 3)).double()
    names = [name for name, _ in module.named_parameters()]
    values = tuple(torch.randn_like(p, requires_grad=True) for p in module.parameters())

    def temporal(tokens, *values):
        with_tokens = features._replace(tokens=tokens)
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (with_tokens,))

    assert torch.autograd.gradcheck(temporal, (features.tokens.clone().requires_grad_(), *values))
    tokens, query = (torch.randn(2, size, 5, dtype=torch.float64, requires_grad=True) for size in (6, 3))
    assert torch.autograd.gradcheck(lambda x, q: pool_tokens(x, q, 1e-5), (tokens, query))


def test_tokens_take_a_gradient_if_they_ask():
    decoder, features, _ = make(CASES[0], num_layers=1)
    layer, one = decoder.layers[0], features[0]
    tokens = one.tokens.clone().requires_grad_()
    direction = torch.randn_like(tokens)
    got, wanted = (
        torch.autograd.grad((call(one._replace(tokens=tokens)) * direction).sum(), tokens)[0]
        for call in (layer.temporal, lambda f: plain_temporal(layer.temporal, f))
    )
    assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_statistics_of_tokens_far_from_zero(dtype):
    torch.manual_seed(0)
    tokens = (torch.randn(2, 700, 33) + 20).to(dtype)
    mean, inverse = token_statistics(tokens, 1e-5)
    exact = tokens.double()
    assert_close(mean.double(), exact.mean(-1), relative=1e-6)
    assert_close(inverse.double(), (exact.var(-1, correction=0) + 1e-5).rsqrt(), relative=1e-4)
    if dtype != torch.bfloat16:
        assert_close(inverse.double(), (exact.var(-1, correction=0) + 1e-5).rsqrt(), relative=1e-5)


def test_second_derivatives_are_refused():
    """They would be wrong in silence: what is saved for backward has no graph of its own."""
    tokens, query = (torch.randn(1, size, 3, requires_grad=True) for size in (4, 1))
    (first,) = torch.autograd.grad(pool_tokens(tokens, query, 1e-5).sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


def saved_bytes(call, known):
    """Bytes that ``call`` keeps for backward, each memory once, without those of ``known`` tensors."""
    known = {tensor.untyped_storage().data_ptr() for tensor in known}
    seen = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(seen.values())


def test_a_layer_keeps_one_token_map_and_the_mean_attention():
    b, t, h, w, prefix = 2, 6, 7, 7, 1
    decoder, features, _ = make((b, t, h, w, prefix, (4, 16), (4, 64), {}), num_layers=3)
    known = [*(part for one in features for part in one), *decoder.parameters()]
    token_map = features[0].tokens.numel() * 4
    maps = crossframe.neighbor_maps(features[0].query, features[0].key, (h, w), torch.float32)
    a_layer = token_map + sum(part.numel() for part in maps) * 4
    small = 40 * b * 4 * (h * w + prefix) * t * 4  # scores, weights, statistics, a few vectors a clip
    assert saved_bytes(lambda: decoder(features), known) < 3 * a_layer + small
    assert saved_bytes(lambda: plain_decoder(decoder, features), known) > 3 * 4 * token_map


def test_a_training_step_keeps_nothing_of_the_backbone_but_its_features():
    backbone = create_backbone("evl_clip_tiny", 2)
    decoder = evl.EVLDecoder(128, 2, num_frames=4, grid=(8, 8))
    model = Classifier(backbone, decoder, ClassifierHead(128, 5))
    clips = torch.randn(2, 4, 3, 64, 64)
    features = []
    backbone.register_forward_hook(lambda module, args, output: features.extend(output))
    kept = saved_bytes(lambda: model(clips).sum(), list(model.parameters()))
    decoder_keeps = saved_bytes(lambda: model.classify(features).sum(), list(model.parameters()))
    assert 0 < kept <= decoder_keeps * 1.01
