"""Every family: tokens, query and key against the real module's own, and a run's whole way through it."""

import copy

import pytest
import torch

import evl
from evl.backbones.timm_vit import TimmBackbone
from evl.config import RunConfig, replace
from evl.saving import build_classifier, save_model
from evl.types import Preprocessing
from tests.backbones.families import FAMILIES, registered, saved, tiny
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


def rotated(x, table, half):
    """RoPE written out: pairs (a, b) turn by the angle whose sine and cosine the table holds."""
    sine, cosine = table.chunk(2, -1)
    if half:  # a pair is channel i and i + K/2
        a, b = x.chunk(2, -1)
        turned = torch.cat([-b, a], -1)
    else:  # neighbors
        turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
    return x * cosine + turned * sine


def watched(model, frames):
    """What hooks see in every block: input and output of the block and its attention, rope, q_norm, k_norm."""
    seen = [{} for _ in model.blocks]
    handles = []
    for block, notes in zip(model.blocks, seen, strict=True):
        block.attn.fused_attn = False

        def whole(module, args, kwargs, output, notes=notes):
            notes.update(tokens=output, rope=kwargs.get("rope"))

        def attention(module, args, kwargs, output, notes=notes):
            notes.update(attends_to=args[0], attended=output)

        handles += [
            block.register_forward_hook(whole, with_kwargs=True),
            block.attn.register_forward_hook(attention, with_kwargs=True),
            *(
                getattr(block.attn, f"{name}_norm").register_forward_hook(
                    lambda module, args, output, notes=notes, name=name: notes.update({name: output})
                )
                for name in "qk"
            ),
        ]
    with torch.no_grad():
        model.forward_features(frames)
    for handle in handles:
        handle.remove()
    return seen


def value_of(attention, x):
    """(F,L,N·K) from the weights alone."""
    if attention.qkv is None:
        return attention.v_proj(x)
    width = attention.num_heads * attention.head_dim
    value = x @ attention.qkv.weight[2 * width :].T
    if getattr(attention, "v_bias", None) is not None:
        return value + attention.v_bias
    return value if attention.qkv.bias is None else value + attention.qkv.bias[2 * width :]


@torch.no_grad()
def reference(model, frames):
    """(tokens, query, key) of every block, having shown that this query and key give the block's own attention."""
    results = []
    for block, notes in zip(model.blocks, watched(model, frames), strict=True):
        attention = block.attn
        query, key = notes["q"], notes["k"]  # (F,N,L,K)
        if notes["rope"] is not None:
            table, half, p = notes["rope"], attention.rotate_half, attention.num_prefix_tokens
            query, key = (torch.cat([x[:, :, :p], rotated(x[:, :, p:], table, half)], 2) for x in (query, key))
        value = value_of(attention, notes["attends_to"]).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        scores = (query @ key.transpose(-1, -2) * attention.head_dim**-0.5).softmax(-1)
        assert scores.std() > 1e-3  # not the same everywhere, which would prove nothing
        mixed = attention.norm((scores @ value).transpose(1, 2).flatten(2))
        if getattr(attention, "gate", None) is not None:
            mixed = mixed * attention.gate(notes["attends_to"]).sigmoid()
        assert_close(attention.proj(mixed), notes["attended"], relative=1e-5)
        results.append((notes["tokens"], query.transpose(1, 2), key.transpose(1, 2)))
    return results


@pytest.mark.parametrize("row", FAMILIES)
def test_tokens_query_and_key_are_the_blocks_own(row):
    torch.manual_seed(list(FAMILIES).index(row))
    _, prefix, _ = FAMILIES[row]
    model = tiny(row)
    patch = model.patch_embed.patch_size[0]
    size = (3 * patch, 5 * patch)
    model.set_input_size(img_size=size)
    for clips in (torch.randn(2, 3, 3, *size), torch.randn(1, 1, 3, *size)):
        frames = clips.flatten(0, 1)
        expected = reference(copy.deepcopy(model), frames)
        untouched = copy.deepcopy(model).forward_features(frames)
        backbone = TimmBackbone(copy.deepcopy(model), row, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), 3)
        spec = backbone.spec
        assert (spec.grid, spec.num_prefix_tokens, spec.num_tokens) == ((3, 5), prefix, prefix + 15)
        assert (spec.width, spec.depth, spec.num_heads, spec.head_width) == (48, 3, 3, 16)
        got = backbone(clips)
        assert len(got) == 3
        for one, wanted in zip(got, expected, strict=True):
            for part, right in zip(one, wanted, strict=True):
                assert_close(part.flatten(0, 1), right, relative=1e-5)
        assert_close(backbone.vit.forward_features(frames), untouched)


ROTARY = [row for row, (name, *_) in FAMILIES.items()
          if any(word in name for word in ("eva02_large", "eva02_small", "dinov3", "_pe_", "rope"))]  # fmt: skip


@pytest.mark.parametrize("row", ROTARY)
def test_rotary_embedding_is_not_narrowed(row):
    """In bfloat16 a query is off by the rounding of products, not by the angle it was turned by."""
    torch.manual_seed(list(FAMILIES).index(row))
    model = tiny(row)
    patch = model.patch_embed.patch_size[0]
    size = (20 * patch, 20 * patch)
    model.set_input_size(img_size=size)
    backbone = TimmBackbone(model, row, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), 3)
    clips = torch.randn(1, 1, 3, *size)
    wide = backbone(clips)[0]
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            narrow = backbone(clips)[0]
        assert narrow.query.dtype == narrow.key.dtype == torch.bfloat16
        for got, wanted in zip(narrow[1:], wide[1:], strict=True):
            assert (got.float() - wanted).norm() < 0.006 * wanted.norm()
    narrowed = backbone.in_type(torch.bfloat16).vit
    assert torch.equal(*(vit.rope.get_embed(shape=vit.patch_embed.grid_size) for vit in (narrowed, model)))


@pytest.mark.parametrize("row", FAMILIES)
def test_trains_saves_loads_and_says_the_same(row, tmp_path):
    torch.manual_seed(list(FAMILIES).index(row))
    model = tiny(row)
    patch = model.patch_embed.patch_size[0]
    weights = saved(model, tmp_path / "weights.safetensors")
    config = replace(
        RunConfig(),
        backbone={"name": registered(row), "weights": str(weights), "image_size": (2 * patch, 3 * patch)},
        model={"taps": "last 2"},
        clip={"num_frames": 2},
    )
    classifier = build_classifier(config, ["a", "b", "c"])
    clips = torch.randn(2, 2, 3, 2 * patch, 3 * patch)
    before = classifier.eval()(clips)
    frozen = classifier.backbone.weights_hash
    optimizer = torch.optim.AdamW((p for p in classifier.parameters() if p.requires_grad), lr=1e-3)
    for _ in range(2):
        classifier.train()
        loss = torch.nn.functional.cross_entropy(classifier(clips), torch.tensor([0, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = classifier.eval()(clips)
    assert (after - before).abs().max() > 1e-3
    save_model(classifier, tmp_path / "saved")
    loaded = evl.load(tmp_path / "saved")
    assert loaded.backbone.weights_hash == frozen
    with torch.no_grad():
        assert torch.equal(loaded(clips), after)
