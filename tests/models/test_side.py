"""The side network against its plain twin, and frame by frame against the whole clip."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evl.bench.counts import total_macs
from evl.bench.side import plain_side, side_macs
from evl.decoders import LOOKS_AHEAD
from evl.models import SideDecoder
from evl.models.side import shift_in_time
from evl.models.side_norm import BatchNorm
from evl.models.tap_reader import TapReader
from evl.models.time_conv import AROUND, PAST, over_time
from evl.types import BackboneSpec, LayerFeatures
from tests.helpers import assert_close

NORMS = ("batch", "layer", "rms", "clip", "channel", "scale")
CAUSAL_NORMS = tuple(norm for norm in NORMS if norm not in LOOKS_AHEAD)
B16 = BackboneSpec("b16", 768, 12, 12, 64, (14, 14), 1, (224, 224), (16, 16))
# b, t, h, w, prefix, d, heads
SIZES = [(2, 5, 3, 4, 1, 16, 2), (1, 1, 2, 2, 0, 6, 1), (3, 2, 1, 5, 5, 9, 3), (1, 64, 2, 1, 1, 8, 1)]


def make(size, *, num_layers=2, width=24, dtype=torch.float32, seed=0, **options):
    """(decoder whose parameters all have an effect, features)."""
    b, t, h, w, prefix, d, heads = size
    torch.manual_seed(seed)
    decoder = SideDecoder(width, num_layers, grid=(h, w), side_width=d, num_heads=heads, **options)
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return decoder.to(dtype), made_features(1 + num_layers, b, t, prefix + h * w, width, dtype)


def made_features(count, b, t, num_tokens, width, dtype=torch.float32):
    """Tokens whose channels differ in size and whose mean is not zero."""
    scale, shift = torch.rand(width) * 3 + 0.1, torch.randn(width)
    return [
        LayerFeatures((torch.randn(b, t, num_tokens, width) * scale + shift).to(dtype), None, None)
        for _ in range(count)
    ]


def frames_of(features, frames):
    return [one._replace(tokens=one.tokens[:, frames]) for one in features]


def gradients(decoder, output, direction):
    decoder.zero_grad()
    (output * direction).sum().backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in decoder.named_parameters()}


def assert_equal_gradients(got, wanted, relative=1e-5, floor=2e-6):
    largest = max(gradient.abs().max() for gradient in wanted.values() if gradient is not None)
    for name, gradient in wanted.items():
        if gradient is not None:  # the key's bias has no effect: the softmax drops it
            assert_close(got[name], gradient, relative=relative, floor=floor * largest)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("readout", ["mean", "query"])
@pytest.mark.parametrize(
    ("norm", "causal"), [*((norm, False) for norm in NORMS), *((norm, True) for norm in CAUSAL_NORMS)]
)
def test_equals_the_plain_twin(size, readout, norm, causal):
    """The mean read-out in float64: its batch norm enlarges the rounding of clips that are alike, or of one alone."""
    dtype = torch.float64 if readout == "mean" else torch.float32
    decoder, features = make(size, norm=norm, causal=causal, readout=readout, dtype=dtype)
    direction = torch.randn(size[0], size[5], dtype=dtype)
    output = decoder(features)
    got = gradients(decoder, output, direction)
    plain = plain_side(decoder, features)
    assert_close(output, plain)
    assert_equal_gradients(got, gradients(decoder, plain, direction))
    assert all(gradient is not None for gradient in got.values())  # DDP and the optimizer expect all


@pytest.mark.parametrize("norm", NORMS)
def test_equals_the_plain_twin_for_clips_that_differ(norm):
    """The mean read-out in float32."""
    decoder, features = make((7, 3, 2, 3, 1, 16, 2), norm=norm)
    features = [one._replace(tokens=one.tokens + 3 * torch.randn(7, 1, 1, 24)) for one in features]
    direction = torch.randn(7, 16)
    output = decoder(features)
    got = gradients(decoder, output, direction)
    plain = plain_side(decoder, features)
    assert_close(output, plain)
    assert_equal_gradients(got, gradients(decoder, plain, direction))


def loops(decoder, features):
    """The equations of docs/side.md with loops over everything, for layer norms and the mean read-out."""

    def norm(module, x):  # one token
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * module.weight + module.bias

    results = []
    for b in range(len(features[0].tokens)):
        maps = [one.tokens[b] for one in features]
        num_frames, num_patches = len(maps[0]), decoder.grid[0] * decoder.grid[1]
        num_prefix = maps[0].shape[1] - num_patches
        start = decoder.start
        s = [[start.proj.weight @ norm(start.norm, maps[0][t, num_prefix + p]) + start.proj.bias
              for p in range(num_patches)] for t in range(num_frames)]  # fmt: skip
        for layer, tokens in zip(decoder.layers, maps[1:], strict=True):
            z = [[layer.tap.proj.weight @ norm(layer.tap.norm, token) + layer.tap.proj.bias for token in frame]
                 for frame in tokens]  # fmt: skip
            s = [[s[t][p] / 2 + z[t][num_prefix + p] / 2 for p in range(num_patches)] for t in range(num_frames)]
            time, new = layer.time, []
            moved = [[time.fc1.weight @ norm(time.norm, x) + time.fc1.bias for x in frame] for frame in s]
            for t in range(num_frames):
                sources = (t - 2, t - 1, t) if decoder.causal else (t - 1, t, t + 1)
                new.append([])
                for p in range(num_patches):
                    mixed = time.conv.bias
                    for k, source in enumerate(sources):
                        if 0 <= source < num_frames:
                            mixed = mixed + time.conv.weight[:, 0, k] * moved[source][p]
                    new[t].append(s[t][p] + time.fc2.weight @ mixed + time.fc2.bias)
            s, new = new, []
            attention, d = layer.attention, decoder.width
            (wq, wk, wv), (bq, bk, bv) = attention.qkv_proj.weight.chunk(3), attention.qkv_proj.bias.chunk(3)
            for t in range(num_frames):
                queries = [x + decoder.position[p] for p, x in enumerate(s[t])]
                rows = list(queries)
                if num_prefix:
                    sources = (t - 1, t - 2) if decoder.causal else (t + 1, t - 1)
                    one, two = (
                        z[i][0] if 0 <= i < num_frames else torch.zeros(d, dtype=torch.float64) for i in sources
                    )
                    rows.insert(0, torch.cat([one[: d // 2], two[d // 2 :]]))
                new.append([])
                for p, x in enumerate(queries):
                    heads = []
                    for part in torch.arange(d).chunk(attention.num_heads):
                        q = (wq @ x + bq)[part]
                        scores = torch.stack([q @ (wk @ row + bk)[part] for row in rows]) / len(part) ** 0.5
                        values = torch.stack([(wv @ row + bv)[part] for row in rows])
                        heads.append(scores.softmax(0) @ values)
                    new[t].append(s[t][p] + attention.out_proj.weight @ torch.cat(heads) + attention.out_proj.bias)
            s, mlp = new, layer.mlp
            for t in range(num_frames):
                for p in range(num_patches):
                    hidden = torch.nn.functional.gelu(mlp.fc1.weight @ norm(layer.norm_mlp, s[t][p]) + mlp.fc1.bias)
                    s[t][p] = s[t][p] + mlp.fc2.weight @ hidden + mlp.fc2.bias
        results.append(sum(x for frame in s for x in frame) / (num_frames * num_patches))
    pooled = torch.stack(results)
    pooled = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
    return pooled * decoder.norm.weight + decoder.norm.bias


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(2, 4, 2, 3, 1, 6, 2), (1, 3, 1, 2, 0, 5, 1), (1, 2, 2, 2, 3, 4, 1)])
def test_equals_loops_over_everything(size, causal):
    decoder, features = make(size, norm="layer", causal=causal, dtype=torch.float64)
    with torch.no_grad():
        assert_close(decoder(features), loops(decoder, features))


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_by_differences(norm):
    decoder, features = make((2, 3, 1, 2, 1, 4, 2), num_layers=1, width=3, dtype=torch.float64, norm=norm)
    names, values = zip(*decoder.named_parameters(), strict=True)
    tokens = [one.tokens.requires_grad_() for one in features]
    buffers = dict(decoder.named_buffers())

    def function(*given):
        own = {name: value.clone() for name, value in buffers.items()}
        maps = [LayerFeatures(one, None, None) for one in given[: len(tokens)]]
        return torch.func.functional_call(decoder, own | dict(zip(names, given[len(tokens) :], strict=True)), (maps,))

    assert torch.autograd.gradcheck(function, (*tokens, *values))


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_tap_is_read_as_by_a_norm_and_a_linear_layer(offset):
    """Also if all tokens have a mean and a channel that are far larger than the rest, as those of large encoders."""
    torch.manual_seed(0)
    reader, tokens = TapReader(48, 16), torch.randn(2, 3, 5, 48) + offset
    tokens[..., 7] += 2 * offset
    for parameter in reader.parameters():
        nn.init.normal_(parameter)
    direction = torch.randn(2, 3, 5, 16)
    found = reader(tokens)
    (found * direction).sum().backward()
    plain = copy.deepcopy(reader).double()
    plain.zero_grad()
    wanted = plain.proj(plain.norm(tokens.double()))
    (wanted * direction).sum().backward()
    assert_close(found.double(), wanted)
    for one, other in zip(reader.parameters(), plain.parameters(), strict=True):
        assert_close(one.grad.double(), other.grad)


@pytest.mark.parametrize("offsets", [AROUND, PAST])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
def test_convolution_over_time(num_frames, offsets):
    conv = torch.nn.Conv1d(5, 5, 3, groups=5)
    x = torch.randn(2, num_frames, 4, 5, requires_grad=True)
    got = over_time(x, conv.weight, conv.bias, offsets)
    parts = (*conv.parameters(), x)
    direction = torch.randn_like(got)
    gradients = torch.autograd.grad((got * direction).sum(), parts)
    padded = torch.nn.functional.pad(x.permute(0, 2, 3, 1).flatten(0, 1), (-offsets[0], offsets[-1]))
    wanted = conv(padded).unflatten(0, (2, 4)).permute(0, 3, 1, 2)
    assert_close(got, wanted)
    for one, other in zip(gradients, torch.autograd.grad((wanted * direction).sum(), parts), strict=True):
        assert_close(one, other, floor=1e-6)


def test_class_rows_come_from_other_frames():
    rows = torch.arange(1.0, 5)[None, :, None].expand(1, 4, 4)  # frame t has t + 1 everywhere
    assert shift_in_time(rows, causal=False)[0, :, [0, 3]].tolist() == [[2, 0], [3, 1], [4, 2], [0, 3]]
    assert shift_in_time(rows, causal=True)[0, :, [0, 3]].tolist() == [[0, 0], [1, 0], [2, 1], [3, 2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_features(norm, dtype):
    decoder, features = make((2, 4, 3, 4, 1, 16, 2), norm=norm)
    decoder.eval()  # in training the read-out enlarges differences of clips that are alike
    narrow = [one._replace(tokens=one.tokens.to(dtype)) for one in features]
    with torch.autocast("cpu", dtype=torch.bfloat16):  # has no effect
        output = decoder(narrow)
    assert output.dtype == torch.float32
    wide = decoder([one._replace(tokens=one.tokens.float()) for one in narrow])
    assert_close(output, wide, relative=0.05)
    output.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in decoder.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "readout"), [("batch", "mean"), ("rms", "query")])
def test_compiled(norm, readout):
    decoder, features = make((2, 4, 3, 4, 1, 16, 2), norm=norm, readout=readout)
    other = copy.deepcopy(decoder)
    other.compile()
    direction = torch.randn(2, 16)
    output, plain = other(features), decoder(features)
    assert_close(output, plain)
    assert_equal_gradients(gradients(other, output, direction), gradients(decoder, plain, direction))


def test_initial_values():
    torch.manual_seed(0)
    d = 256
    decoder = SideDecoder(64, 2, grid=(16, 16), side_width=d)
    layer = decoder.layers[1]
    stds = {
        layer.attention.qkv_proj.weight: d**-0.5,
        layer.attention.out_proj.weight: d**-0.5 * 24**-0.5,
        layer.mlp.fc1.weight: (2 * d) ** -0.5,
        layer.mlp.fc2.weight: d**-0.5 * 24**-0.5,
        decoder.position: 0.01,
        layer.time.fc1.weight: (3 * d) ** -0.5,  # PyTorch's: uniform up to d^−½
        layer.time.conv.weight[:, :, 1]: 1 / 30,  # a tenth of PyTorch's: uniform up to 3^−½
        layer.tap.proj.weight: (3 * 64) ** -0.5,
    }
    for weight, std in stds.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)
        assert abs(weight.mean().item()) < 0.1 * std
    before, after = layer.time.conv.weight[:, 0, 0], layer.time.conv.weight[:, 0, 2]
    assert (after - before).abs().mean().item() == pytest.approx(1, rel=0.05)  # a difference of frames
    assert abs((after - before).sign().mean().item()) < 0.25
    assert abs((after + before).mean().item()) < 0.02
    assert layer.attention.qkv_proj.bias.abs().max() == layer.attention.out_proj.bias.abs().max() == 0


@pytest.mark.parametrize(("d", "millions", "billions"), [(320, 21.05, 35.2), (128, 4.30, 7.6)])
def test_counts_are_those_of_the_publication(d, millions, billions):
    """B/16, 8 frames. With their start, a convolution of pixels; ours reads a token map, and is smaller."""
    with torch.device("meta"):
        decoder = SideDecoder(768, 12, grid=(14, 14), side_width=d)
        features = [LayerFeatures(torch.empty(1, 8, 197, 768), None, None)] * 13
        with FlopCounterMode(display=False) as plain:
            plain_side(decoder, features)
    macs = side_macs(decoder, B16, 8)
    counted = plain.get_total_flops() / 2
    assert counted == pytest.approx(total_macs(macs, "plain"), rel=1e-3)  # q of the class row is not counted there
    start = 8 * 196 * 3 * 768 * d - macs["start"]["plain"]
    assert (counted + start) / 1e9 == pytest.approx(billions, abs=0.05)
    parameters = sum(p.numel() for p in decoder.parameters())
    start = 3 * 768 * d + d - sum(p.numel() for p in decoder.start.parameters())
    assert (parameters + start) / 1e6 == pytest.approx(millions, abs=0.005)


class TestBatchNorm:
    def test_equals_torchs(self):
        x = torch.randn(3, 4, 5, 6) * 3 + 7
        own, torchs = BatchNorm(6), torch.nn.BatchNorm1d(6, momentum=None)
        for _ in range(3):
            assert_close(own(x), torchs(x.flatten(0, -2)).view_as(x))
        assert_close(own.running_mean, torchs.running_mean)
        assert_close(own.running_var, torchs.running_var)
        assert_close(own.eval()(x), torchs.eval()(x.flatten(0, -2)).view_as(x))

    def test_running_statistics_forget_slowly_after_ten_calls(self):
        norm = BatchNorm(1)
        for _ in range(12):
            norm(torch.full((4, 1), 1.0))
        assert norm.running_mean.item() == pytest.approx(1)
        norm(torch.full((4, 1), 2.0))
        assert norm.running_mean.item() == pytest.approx(1.1)
        assert norm.num_batches == 13

    def test_no_clips_change_nothing(self):
        norm = BatchNorm(6)
        norm(torch.randn(4, 6))
        before = copy.deepcopy(norm.state_dict())
        x = torch.zeros(0, 2, 3, 6, requires_grad=True)
        norm(x).sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
        assert norm.weight.grad.abs().max() == 0
        assert x.grad.shape == x.shape

    def test_one_token(self):
        norm = BatchNorm(3)
        assert norm(torch.randn(1, 1, 1, 3)).isfinite().all()
        assert all(value.isfinite().all() for value in norm.state_dict().values())


@pytest.mark.parametrize("readout", ["mean", "query"])
@pytest.mark.parametrize("norm", NORMS)
def test_no_clips(norm, readout):
    """As in a process whose videos are all damaged, while other processes wait for its statistics."""
    decoder, features = make((0, 3, 2, 3, 1, 8, 2), norm=norm, readout=readout)
    output = decoder(features)
    assert output.shape == (0, 8)
    output.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in decoder.parameters())


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "batch"])
def test_clips_do_not_depend_on_each_other(norm):
    """Only batch norm in training makes a clip depend on the others of its batch; the mean read-out has one."""
    decoder, features = make((3, 4, 2, 3, 1, 8, 2), norm=norm, readout="query")
    alone = [one._replace(tokens=one.tokens[1:2]) for one in features]
    assert_close(decoder(features)[1:2], decoder(alone))


@pytest.mark.parametrize("norm", ["batch", "channel"])
def test_batch_norm_in_evaluation_depends_on_no_other_clip(norm):
    decoder, features = make((3, 4, 2, 3, 1, 8, 2), norm=norm)
    decoder(features)
    alone = [one._replace(tokens=one.tokens[1:2]) for one in features]
    assert (decoder(features)[1:2] - decoder(alone)).abs().max() > 1e-3
    decoder.eval()
    assert_close(decoder(features)[1:2], decoder(alone))


def test_a_batch_of_one_clip_teaches_the_network_nothing():
    """A batch norm over one clip has no deviation; its gradients are exactly 0, not noise that AdamW would amplify."""
    decoder, features = make((1, 4, 2, 3, 1, 8, 2))
    (decoder(features) * torch.randn(8)).sum().backward()
    moved = {name for name, p in decoder.named_parameters() if p.grad.abs().max() > 0}
    assert moved == {"norm.bias"}
