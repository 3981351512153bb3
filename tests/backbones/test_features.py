"""Tokens, query and key against what is observed inside the real block."""

import copy
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from evl.backbones import create_backbone
from evl.backbones.timm_vit import TimmBackbone
from evl.config import BackboneConfig
from evl.errors import BackboneError
from evl.types import Preprocessing
from tests.helpers import GOLDEN, assert_close

SMALL = dict(img_size=(24, 40), patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0)
PREPROCESSING = Preprocessing((24, 40), (0.5,) * 3, (0.5,) * 3)

MODELS = {
    "plain": partial(VisionTransformer, **SMALL),
    "no class token": partial(VisionTransformer, **SMALL, class_token=False, global_pool="avg"),
    "registers, layer scale": partial(VisionTransformer, **SMALL, reg_tokens=4, init_values=0.5),
    "q/k norm": partial(VisionTransformer, **SMALL, qk_norm=True),
    "no bias": partial(VisionTransformer, **SMALL, qkv_bias=False),
    "CLIP": partial(VisionTransformer, **SMALL, pre_norm=True, act_layer="quick_gelu"),
    "EVA: rotary, fused": partial(Eva, **SMALL, use_rot_pos_emb=True),
    "EVA: rotary, separate": partial(Eva, **SMALL, use_rot_pos_emb=True, qkv_fused=False, swiglu_mlp=True),
    "rope attention, registers": partial(
        Eva, **SMALL, use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, attn_type="rope",
    ),
    "rope attention, q/k norm": partial(Eva, **SMALL, use_rot_pos_emb=True, attn_type="rope", qk_norm=True),
}  # fmt: skip


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, so that nothing hides behind 0 and 1
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def observed(model, frames):
    """Tokens, query and key of each block, computed from the inputs hooks see and docs/method.md's definition."""
    seen = []

    def note(block, args, kwargs, output):
        seen.append((block, args[0], kwargs.get("rope", args[1] if len(args) > 1 else None), output))

    handles = [block.register_forward_hook(note, with_kwargs=True) for block in model.blocks]
    with torch.no_grad():
        model.forward_features(frames)
    for handle in handles:
        handle.remove()
    results = []
    for block, x, rope, output in seen:
        attn, y = block.attn, block.norm1(x)
        if attn.qkv is not None:
            qkv = y @ attn.qkv.weight.T
            if getattr(attn, "q_bias", None) is not None:
                qkv = qkv + torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
            elif attn.qkv.bias is not None:
                qkv = qkv + attn.qkv.bias
            q, k, _ = qkv.chunk(3, -1)
        else:
            q, k = attn.q_proj(y), attn.k_proj(y)
        q, k = (z.unflatten(-1, (attn.num_heads, -1)) for z in (q, k))  # (F,L,N,K)
        q, k = attn.q_norm(q), attn.k_norm(k)
        if rope is not None:
            p, half = attn.num_prefix_tokens, getattr(attn, "rotate_half", False)
            q, k = (
                torch.cat([z[:, :p], apply_rot_embed_cat(z[:, p:].transpose(1, 2), rope, half=half)
                           .transpose(1, 2)], 1)
                for z in (q, k)
            )  # fmt: skip
        results.append((output, q, k))
    return results


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_blocks_own(name):
    torch.manual_seed(len(name))
    model = randomised(MODELS[name]())
    clips = torch.randn(2, 3, 3, 24, 40)
    expected = observed(model, clips.flatten(0, 1))
    untouched = model.forward_features(clips.flatten(0, 1))
    backbone = TimmBackbone(model, name, PREPROCESSING, taps=2)
    spec = backbone.spec
    assert (spec.grid, spec.image_size, spec.width, spec.num_heads, spec.head_width) == ((3, 5), (24, 40), 32, 2, 16)
    for _ in range(2):
        features = backbone(clips)
        assert len(features) == 2
        for got, wanted in zip(features, expected[-2:], strict=True):
            for part, reference in zip(got, wanted, strict=True):
                assert not part.requires_grad
                assert_close(part.flatten(0, 1), reference, relative=1e-5)
            assert got.tokens.shape[2] == spec.num_tokens
            for part in (got.query, got.key):  # nothing but itself is kept alive
                assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
    assert_close(model.forward_features(clips.flatten(0, 1)), untouched)


@pytest.mark.parametrize("name", MODELS)
def test_timms_attention_without_its_fused_form_gives_the_same(name):
    """With TIMM_FUSED_ATTN=0 blocks compute attention by hand, where no query and key would be seen."""
    model = randomised(MODELS[name]())
    clips = torch.randn(1, 2, 3, 24, 40)
    expected = TimmBackbone(copy.deepcopy(model), name, PREPROCESSING, 2)(clips)
    for block in model.blocks:
        block.attn.fused_attn = False
    for ours, theirs in zip(TimmBackbone(model, name, PREPROCESSING, 2)(clips), expected, strict=True):
        for part in ("tokens", "query", "key"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))


@pytest.mark.parametrize(
    ("taps", "blocks"), [(2, [2, 3]), ("last 1", [3]), ("all", [1, 2, 3]), ([1, 3], [1, 3]), ((2,), [2]), ([1], [1])]
)
@pytest.mark.parametrize("name", ["plain", "EVA: rotary, fused"])
def test_any_blocks_can_be_tapped(name, taps, blocks):
    torch.manual_seed(len(blocks))
    model = randomised(MODELS[name]())
    clips = torch.randn(1, 2, 3, 24, 40)
    expected = observed(model, clips.flatten(0, 1))
    backbone = TimmBackbone(model, name, PREPROCESSING, taps)
    assert backbone.taps == tuple(blocks)
    ran = []
    for number, block in enumerate(model.blocks, 1):
        block.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    for got, block in zip(backbone(clips), blocks, strict=True):
        for part, reference in zip(got, expected[block - 1], strict=True):
            assert_close(part.flatten(0, 1), reference, relative=1e-5)
    assert ran == list(range(1, blocks[-1] + 1))  # nothing behind the deepest


@pytest.mark.parametrize("taps", [0, 4, "last 4", "start and last 4", [], [0], [-1, 1], [3, 2], [2, 2], [1, 4], [0, 4]])
def test_blocks_that_are_not_there(taps):
    with pytest.raises(BackboneError, match=r"3 blocks|1 to 3"):
        TimmBackbone(MODELS["plain"](), "plain", PREPROCESSING, taps)


def test_frozen_is_enforced():
    backbone = create_backbone("evl_clip_tiny", 2)
    assert not backbone.train().training
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    with pytest.raises(BackboneError, match="frozen"):
        backbone.requires_grad_(True)
    clips = torch.randn(1, 2, 3, 64, 64, requires_grad=True)
    assert not backbone(clips)[0].tokens.requires_grad
    with pytest.raises(ValueError, match="frames of 32×64 pixels"):
        backbone(torch.randn(1, 2, 3, 32, 64))


def test_random_weights_are_the_same_everywhere():
    torch.manual_seed(1)
    config = BackboneConfig("evl_clip_tiny", pretrained=False)
    first = create_backbone(config, 2)
    torch.manual_seed(2)
    second = create_backbone(config, 2)
    assert first.weights_hash == second.weights_hash
    assert first.weights_hash.startswith("f335b55b7807027a")
    with torch.no_grad():
        next(second.parameters()).add_(1e-3)
    second._hash = None
    assert first.weights_hash != second.weights_hash


def test_openai_archive_gives_the_reference_features():
    backbone = create_backbone(BackboneConfig("openai_clip", weights=str(GOLDEN / "openai_clip_tiny.pt")), 2)
    golden = load_file(GOLDEN / "model_tiny.safetensors")
    assert backbone.spec.grid == (4, 4)
    assert backbone.preprocessing.mean[0] == 0.48145466
    for i, one in enumerate(backbone(golden["video"].transpose(1, 2))):
        for part, name in zip(one, ("out", "q", "k"), strict=True):
            assert_close(part, golden[f"features.{i}.{name}"])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_file_in_timm_layout(tmp_path, suffix):
    torch.manual_seed(0)
    name = "test_vit"
    state = randomised(timm.create_model(name)).state_dict()  # with its 1000-way classifier
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": state}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    backbone = create_backbone(BackboneConfig(name, weights=str(path)), 2)
    assert_close(backbone.vit.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert backbone.preprocessing.image_size == (160, 160)
    assert backbone.preprocessing.interpolation == "bicubic"
    larger = create_backbone(BackboneConfig(name, weights=str(path), image_size=192), 2)
    assert larger.spec.grid == (12, 12)  # positions interpolated
    del state["blocks.1.norm1.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(BackboneError, match=r"does not fit test_vit.*blocks\.1\.norm1\.weight"):
        create_backbone(BackboneConfig(name, weights=str(tmp_path / "partial.pth")), 2)
