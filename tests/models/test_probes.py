"""The attentive probe: against transformers' own, against the plain twin, and what it must not care about."""

import copy
import math
import random

import pytest
import torch
from safetensors import safe_open
from torch import nn

from evl.models import AttentiveProbe
from evl.models.probes import SpaceTimePositions
from evl.runtime import cpu as onednn
from evl.types import LayerFeatures
from tests.helpers import GOLDEN, assert_close
from tests.models.probe_twin import plain_positions, plain_probe

# b, t, h, w, prefix, width, heads, blocks, positions
CASES = [
    (2, 3, 2, 3, 1, 24, 3, 4, True),
    (2, 3, 3, 2, 1, 24, 3, 4, False),
    (1, 1, 1, 1, 0, 6, 1, 1, True),
    (3, 1, 3, 5, 5, 35, 5, 2, True),
    (1, 9, 5, 1, 0, 40, 2, 1, True),
    (2, 5, 1, 7, 4, 22, 11, 1, False),
    (1, 16, 2, 2, 2, 12, 2, 3, False),
]


def make(case, dtype=torch.float32):
    """(probe with every parameter set, features, direction of the gradient)."""
    b, t, h, w, prefix, width, heads, blocks, positions = case
    seed = random.randrange(1 << 30)
    print("seed", seed)  # pytest shows it when a test fails
    torch.manual_seed(seed)
    probe = AttentiveProbe(
        width, num_blocks=blocks, num_heads=heads, num_frames=t, grid=(h, w), positions=positions, mlp_ratio=3
    )
    for name, parameter in probe.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=min(0.2, width**-0.5))
    scale = torch.logspace(-0.5, 0.5, width)  # channels of different size and a mean, as a residual stream has them
    tokens = ((torch.randn(b, t, prefix + h * w, width) + 0.5) * scale).to(dtype)
    return probe, [LayerFeatures(tokens, None, None)], torch.randn(b, width)


def run(call, probe, features, direction):
    probe.zero_grad()
    output = call(features)
    (output * direction.to(output)).sum().backward()
    assert all(p.grad is not None for p in probe.parameters()), "DDP waits for every gradient"
    return output.detach(), {name: p.grad.clone() for name, p in probe.named_parameters()}


def exact(probe, features, direction):
    """What the twin gives in double precision."""
    double = copy.deepcopy(probe).double()
    features = [LayerFeatures(features[-1].tokens.double(), None, None)]
    double.zero_grad()
    output = plain_probe(double, features)
    (output * direction.double()).sum().backward()
    return output.detach(), {name: p.grad for name, p in double.named_parameters()}


def compare(got, wanted, relative=1e-5):
    assert_close(got[0].double(), wanted[0], relative=relative)
    largest = max(gradient.abs().max().item() for gradient in wanted[1].values())
    assert got[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():  # the key's bias has none by symmetry: what stands there is rounding
        floor = (0.1 if "bias" in name else 0.01) * relative * largest
        try:
            assert_close(got[1][name].double(), gradient, relative=relative, floor=floor)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("onednn_taken", [False, True] if onednn.works() else [False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_equal_the_twin(monkeypatch, case, onednn_taken):
    monkeypatch.setattr(onednn, "available", lambda: onednn_taken)
    probe, features, direction = make(case)
    wanted = exact(probe, features, direction)
    first, second = (run(probe, probe, features, direction) for _ in range(2))
    compare(first, wanted)
    assert torch.equal(first[0], second[0])  # calling twice changes nothing
    assert all(torch.equal(first[1][name], gradient) for name, gradient in second[1].items())


HUGGING_FACE = [  # transformers' name -> ours
    ("query_tokens", "query_token"),
    ("cross_attention_layer.layer_norm1", "norm_tokens"),
    ("cross_attention_layer.cross_attn", "attention"),
    ("cross_attention_layer.layer_norm2", "norm_mlp"),
    ("cross_attention_layer.mlp", "mlp"),
    ("self_attention_layers", "blocks"),
    ("layer_norm1", "norm_attention"),
    ("layer_norm2", "norm_mlp"),
    ("self_attn.", ""),
]


def from_hugging_face(tensors, prefix, shapes):
    """The tensors called ``prefix`` + transformers' names under our names; q, k and v of a block in one."""
    found = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for theirs, ours in HUGGING_FACE:
                name = name.replace(theirs, ours)
            found[name] = tensor
    for name in [name for name in shapes if "qkv_proj" in name]:
        found[name] = torch.cat([found.pop(name.replace("qkv", part)) for part in "qkv"])
    return {name: found.pop(name).reshape(shape) for name, shape in shapes.items()}, found


@pytest.mark.parametrize("num_blocks", [1, 4])
def test_equals_transformers_v_jepa_2(num_blocks):
    """Outputs and every gradient, the tokens' too; ``tests/golden/vjepa2_pooler.py`` made the numbers."""
    with safe_open(GOLDEN / f"vjepa2_pooler_{num_blocks}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        num_heads = int(file.metadata()["num_heads"])
    probe = AttentiveProbe(24, num_blocks=num_blocks, num_heads=num_heads, positions=False)
    shapes = {name: parameter.shape for name, parameter in probe.named_parameters()}
    state, unknown = from_hugging_face(tensors, "param.", shapes)
    assert not unknown
    probe.load_state_dict(state)
    gradients, _ = from_hugging_face(tensors, "grad.", shapes)
    tokens = tensors["tokens"].requires_grad_()
    output = probe.pool(tokens)
    (output * tensors["grad_output"]).sum().backward()
    assert_close(output.detach(), tensors["output"])
    assert_close(tokens.grad, tensors["grad_tokens"])
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, parameter in probe.named_parameters():
        assert_close(parameter.grad, gradients[name], floor=1e-6 * largest)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[5]], ids=str)
def test_bfloat16_features_under_float32_parameters(case):
    """What is as large as the tokens stays narrow; the result and every gradient come in the parameters' type."""
    probe, features, direction = make(case, torch.bfloat16)
    wanted = exact(probe, features, direction)
    seen = []
    for block in probe.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    def with_autocast(features):  # which changes nothing
        with torch.autocast("cpu", torch.float16):
            return probe(features)

    output, gradients = run(with_autocast, probe, features, direction)
    plain = run(probe, probe, features, direction)
    assert torch.equal(output, plain[0])
    assert all(torch.equal(gradients[name], gradient) for name, gradient in plain[1].items())
    assert output.dtype == torch.float32
    assert set(seen) <= {torch.bfloat16}, "blocks"
    assert (output - wanted[0]).norm() < 0.03 * wanted[0].norm()
    got, want = (torch.cat([g.flatten().double() for g in one.values()]) for one in (gradients, wanted[1]))
    assert (got - want).norm() < 0.05 * want.norm()


def test_positions():
    t, h, w, prefix, width = 3, 2, 4, 2, 20
    tokens = torch.randn(2, t, prefix + h * w, width)
    told = SpaceTimePositions(width, t, (h, w))(tokens) - tokens
    assert_close(told[0], plain_positions(t, prefix + h * w, (h, w), width).float())
    assert_close(told[1], told[0], relative=1e-6)
    n = width // 6
    assert told[0, 1, 0, 0] == pytest.approx(math.sin(8), abs=1e-5)  # the middle of the clip, at frequency 1
    assert told[:, :, :prefix, 2 * n :].abs().max() == 0  # prefix tokens: time only
    assert told[..., 6 * n :].abs().max() == 0
    places = told[0].flatten(0, 1)
    distances = torch.cdist(places, places).fill_diagonal_(1)
    distances[:: prefix + h * w, 1 :: prefix + h * w] = 1  # a frame's two prefix tokens stand at one place
    distances[1 :: prefix + h * w, :: prefix + h * w] = 1
    assert distances.min() > 0.1
    # of no state; they follow the module's type
    assert not SpaceTimePositions(width, t, (h, w)).state_dict()
    assert SpaceTimePositions(width, t, (h, w)).bfloat16()(tokens.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_without_positions_order_is_nothing_with_them_it_matters(num_blocks):
    b, t, h, w, _, width, heads, *_ = CASES[0]
    for positions in (False, True):
        probe, ((tokens, *_),), _ = make((b, t, h, w, 1, width, heads, num_blocks, positions))
        output = probe([LayerFeatures(tokens, None, None)])
        for turned in (tokens.flip(1), tokens.flip(2)):
            change = (probe([LayerFeatures(turned, None, None)]) - output).abs().max() / output.abs().max()
            assert change > 1e-3 if positions else change < 1e-5


def test_any_layout_in_memory_and_the_deepest_block():
    probe, features, _ = make(CASES[0])
    shuffled = features[0].tokens.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not shuffled.is_contiguous()
    other = LayerFeatures(torch.zeros_like(shuffled), None, None)
    assert_close(probe([other, LayerFeatures(shuffled, None, None)]), probe(features), relative=1e-6)


def test_initial_values_are_v_jepas():
    torch.manual_seed(0)
    probe = AttentiveProbe(192, num_blocks=3, positions=False)
    assert probe.attention.num_heads == 3
    stds = {name: p.std().item() for name, p in probe.named_parameters() if name.endswith("weight") and p.ndim == 2}
    for name, std in stds.items():
        depth = 0.5 if "out_proj" not in name and "fc2" not in name else 1
        if depth == 1 and name.startswith("blocks"):
            depth = int(name.split(".")[1]) + 2
        assert std == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.02), name
    assert len(stds) == 3 + 2 + 2 * 4
    assert all(p.abs().max() == 0 for name, p in probe.named_parameters() if name.endswith("bias"))
    assert 0.015 < probe.query_token.std() < 0.025


def test_dropout_is_the_mlps():
    torch.manual_seed(0)
    probe = AttentiveProbe(24, num_blocks=2, num_heads=2, positions=False, mlp_dropout=0.5)
    features = [LayerFeatures(torch.randn(2, 3, 4, 24), None, None)]
    assert not torch.equal(probe(features), probe(features))
    probe.eval()
    assert torch.equal(probe(features), probe(features))


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="num_blocks 0"):
        AttentiveProbe(24, num_blocks=0, positions=False)
    with pytest.raises(ValueError, match="need num_frames and the patch grid"):
        AttentiveProbe(24, num_frames=3)
    with pytest.raises(ValueError, match="25 is not a multiple of num_heads 2"):
        AttentiveProbe(25, num_heads=2, positions=False)
    with pytest.raises(ValueError, match="at least 6"):
        AttentiveProbe(4, num_frames=3, grid=(1, 1))
    probe = AttentiveProbe(24, num_blocks=1, num_frames=3, grid=(2, 2))
    with pytest.raises(ValueError, match="clips of 2 frames, but this probe was made for 3"):
        probe([LayerFeatures(torch.randn(1, 2, 4, 24), None, None)])
    with pytest.raises(ValueError, match="3 tokens per frame"):
        probe([LayerFeatures(torch.randn(1, 3, 3, 24), None, None)])


@pytest.mark.parametrize(
    ("case", "backend"),
    [(CASES[3], "aot_eager"), *(pytest.param(case, "inductor", marks=pytest.mark.slow) for case in CASES)],
    ids=str,
)
def test_compiled_equals_the_twin(case, backend):
    torch._dynamo.reset()
    probe, features, direction = make(case)
    wanted = exact(probe, features, direction)
    compiled = torch.compile(probe, backend=backend, fullgraph=True)
    compare(run(compiled, probe, features, direction), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuda_equals_the_twin(case):
    probe, features, direction = make(case)
    wanted = exact(probe, features, direction)
    probe.cuda()
    output, gradients = run(probe, probe, [LayerFeatures(features[0].tokens.cuda(), None, None)], direction)
    compare((output.cpu(), {name: g.cpu() for name, g in gradients.items()}), wanted, relative=1e-4)
