"""Packing against its plain twin, its error bounds, and what cannot be packed."""

import pytest
import torch

from evl.errors import RunError
from evl.store.packing import TYPES, Packed, _unpack_at_once, pack_maps, pack_tokens

DTYPES = ("float32", "float16", "bfloat16", "int8", "float8")
SHAPES = ((1, 1, 1, 1), (1, 2, 5, 7), (3, 4, 17, 24), (2, 3, 197, 768))  # the last: clips are unpacked by frames


def tokens_of(shape, seed=0):
    """Channels and tokens of very different sizes, as transformers have them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    x *= torch.logspace(-3, 2, shape[-1])
    return x * torch.rand(*shape[:-1], 1, generator=generator)


def plain(packed):
    return packed.values.double() * (1 if packed.scale is None else packed.scale.double())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", ["channel", "token"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unpacked_is_near_what_was_packed(dtype, scale, shape):
    x = tokens_of(shape)
    packed = pack_tokens(x.clone(), dtype, scale)
    assert packed.values.dtype == TYPES[dtype]
    assert packed.values.shape == x.shape
    assert len(packed) == len(x)
    if dtype in ("int8", "float8"):
        n, t, num_tokens, width = shape
        assert packed.scale.dtype == torch.float32
        assert packed.scale.shape == ((n, 1, 1, width) if scale == "channel" else (n, t, num_tokens, 1))
        absmax = x.abs().amax((1, 2) if scale == "channel" else 3, keepdim=True)
        torch.testing.assert_close(packed.scale, absmax / (127 if dtype == "int8" else 448))
    bound = {
        "float32": 0 * x,
        "float16": x.abs() * 2**-11 + 2**-25,
        "bfloat16": x.abs() * 2**-8,
        "int8": 0 if packed.scale is None else packed.scale / 2,
        "float8": x.abs() * 2**-4 + (0 if packed.scale is None else packed.scale * 2**-10),
    }[dtype]
    back = packed.unpack()
    assert back.dtype == torch.float32
    assert ((back - x).abs() <= bound * 1.00001).all()
    torch.testing.assert_close(back.double(), plain(packed), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wanted", [torch.float16, torch.bfloat16, torch.float64])
def test_unpacked_to_another_type_is_rounded_once(dtype, wanted):
    packed = pack_tokens(tokens_of((2, 3, 5, 24), 1), dtype)
    torch.testing.assert_close(packed.unpack(wanted), packed.unpack().to(wanted), rtol=0, atol=0)
    out = torch.empty(2, 3, 5, 24, dtype=wanted)
    assert packed.unpack(out=out) is out
    torch.testing.assert_close(out, packed.unpack(wanted), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["int8", "float8"])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16])
def test_the_form_of_other_devices_gives_the_same(dtype, wanted):
    for packed in (pack_tokens(tokens_of((3, 2, 17, 24)), dtype), pack_maps(torch.rand(2, 3, 2, 3, 2, 2, 3), dtype)):
        at_once = _unpack_at_once(packed.values, packed.scale, torch.empty(packed.values.shape, dtype=wanted))
        torch.testing.assert_close(at_once, packed.unpack(wanted), rtol=0, atol=0)


def test_every_float8_unpacks_to_itself():
    values = torch.arange(256, dtype=torch.uint8)
    values = values[values & 127 != 127].view(torch.float8_e4m3fn)  # without the two that are no numbers
    packed = Packed(values.view(2, -1), torch.tensor([[1.0], [3.0]]))
    assert torch.equal(packed.unpack(), values.float().view(2, -1) * packed.scale)
    large = Packed(values[None], torch.tensor([[1e30]]))
    assert torch.equal(large.unpack(), values.float()[None] * torch.tensor(1e30))


@pytest.mark.parametrize("dtype", ["int8", "float8"])
@pytest.mark.parametrize("scale", ["channel", "token"])
def test_rows_of_zeros_and_of_tiny_numbers(dtype, scale):
    x = tokens_of((2, 2, 3, 5))
    x[0, :, :, 2], x[1, 1, 1] = 0, 0
    x[1, :, :, 4], x[0, 0, 0] = 1e-44, -1e-44
    back = pack_tokens(x, dtype, scale).unpack()
    assert back.isfinite().all()
    assert not back[0, 1:, :, 2].any()
    assert not back[1, 1, 1, :4].any()
    assert pack_tokens(torch.zeros(2, 2, 3, 5), dtype, scale).unpack().eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", ["channel", "token"])
def test_a_clip_does_not_depend_on_its_neighbors(dtype, scale):
    x = tokens_of((3, 2, 17, 24))
    together = pack_tokens(x, dtype, scale)
    x[0] *= 100
    x[2] = 0
    others, alone = pack_tokens(x, dtype, scale), pack_tokens(x[1:2], dtype, scale)
    for one in (others[1:2], alone):
        assert torch.equal(one.values.view(torch.uint8), together[1:2].values.view(torch.uint8))
        assert one.scale is None or torch.equal(one.scale, together.scale[1:2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 7)])
def test_maps(dtype, grid):
    h, w = grid
    maps = torch.randn(2, 3, h, w, 2, h, w).mul(3).flatten(5).softmax(-1).view(2, 3, h, w, 2, h, w).transpose(4, 5)
    maps = maps.contiguous()
    maps[:, 0, :, :, :, 0] = 0  # the first frame has no neighbor before
    packed = pack_maps(maps, dtype)
    assert packed.values.shape == maps.shape
    back = packed.unpack()
    assert not back[:, 0, :, :, :, 0].any()
    if dtype in ("int8", "float8"):
        assert packed.values.dtype == torch.uint8
        assert packed.scale.shape == (2, 3, h, w, 1, 1, 1)
        assert (back - maps).abs().max() <= packed.scale.max() / 2 * 1.00001
        assert ((back - maps).abs() <= packed.scale / 2 * 1.00001).all()
    else:
        torch.testing.assert_close(back, maps, rtol=2**-8, atol=2**-25)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(dtype, bad):
    x = tokens_of((2, 2, 3, 5))
    x[1, 0, 2, 3] = bad
    with pytest.raises(RunError, match="not finite"):
        pack_tokens(x, dtype)


def test_what_float16_cannot_hold_is_refused():
    x = tokens_of((1, 2, 3, 5))
    x[0, 1, 1, 1] = -65520
    with pytest.raises(RunError, match=r"6.55e\+04.*bfloat16"):
        pack_tokens(x, "float16")
    for dtype in ("float32", "bfloat16", "int8", "float8"):
        torch.testing.assert_close(pack_tokens(x, dtype).unpack()[0, 1, 1, 1].item(), -65520.0, rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_features_pack_as_wide_ones(dtype):
    x = tokens_of((2, 2, 3, 5)).to(dtype)
    for name in ("int8", "float8"):
        narrow, wide = pack_tokens(x, name), pack_tokens(x.float(), name)
        assert torch.equal(narrow.values.view(torch.uint8), wide.values.view(torch.uint8))
        assert torch.equal(narrow.scale, wide.scale)


def test_rows_and_sizes():
    packed = pack_tokens(tokens_of((3, 2, 5, 7)), "int8")
    some = packed[torch.tensor([2, 0])]
    assert torch.equal(some.unpack(), packed.unpack()[[2, 0]])
    assert packed.num_bytes == 3 * (2 * 5 * 7 + 7 * 4)
    assert torch.equal(packed.to("cpu").unpack(), packed.unpack())
