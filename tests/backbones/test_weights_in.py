"""Weights of every layout into timm's architectures: the same token maps as the libraries that made them."""

import pytest
import torch
from safetensors.torch import save_file

from evl.backbones import create_backbone
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.goldens import LAYOUTS, open_layout, write_layout
from tests.helpers import GOLDEN, assert_close


def load(name, path, taps=2, **more):
    return create_backbone(BackboneConfig(name, weights=str(path), **more), taps)


@pytest.mark.parametrize("golden", LAYOUTS, ids=lambda path: path.stem)
def test_tokens_are_those_of_the_library(golden, tmp_path):
    path, frames, tokens, metadata = write_layout(tmp_path / "one", golden)
    backbone = load(metadata["architecture"], path)
    got = backbone(frames[:, None])
    for ours, theirs in zip(got, tokens, strict=True):
        assert_close(ours.tokens[:, 0], theirs)
    assert backbone.origin.layout == metadata["layout"]
    assert (backbone.origin.kind, backbone.origin.source) == ("file", "model.safetensors")
    pickled, *_ = write_layout(tmp_path / "two", golden, "pytorch_model.bin")
    again = load(metadata["architecture"], pickled)
    assert again.weights_hash == backbone.weights_hash


def test_there_is_a_golden_file_of_each_layout():
    assert {path.stem.split("_")[0] for path in LAYOUTS} == {"hf", "open"}
    assert len(LAYOUTS) == 16


def timm_state(name):
    """Weights of a tiny architecture, every tensor with values of its own."""
    import timm

    generator = torch.Generator().manual_seed(3)
    state = timm.create_model(name, num_classes=0).state_dict()
    return {key: torch.randn(value.shape, generator=generator) * 0.2 for key, value in state.items()}


def renamed(state, *rules):
    """Keys with parts replaced, one rule after the other."""
    for old, new in rules:
        state = {key.replace(old, new): value for key, value in state.items()}
    return state


CLIP_NAMES = (
    ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"), ("blocks.", "transformer.resblocks."),
    ("norm_pre.", "ln_pre."), ("qkv.weight", "in_proj_weight"), ("qkv.bias", "in_proj_bias"),
    ("attn.proj", "attn.out_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"), ("cls_token", "class_embedding"),
)  # fmt: skip


def as_perception_encoder(state, pools=True):
    pool = {key: state.pop(key) for key in list(state) if key.startswith("attn_pool.")}
    state = renamed(state, *CLIP_NAMES, ("norm.", "ln_post."))
    state["class_embedding"], state["positional_embedding"] = (
        state["class_embedding"][0, 0],
        state["positional_embedding"][0],
    )
    if not pools:  # the spatial towers: the image tower alone
        return state
    state["attn_pool.probe"] = pool.pop("attn_pool.latent")
    for kind in ("weight", "bias"):
        state[f"attn_pool.attn.in_proj_{kind}"] = torch.cat(
            [pool.pop(f"attn_pool.q.{kind}"), pool.pop(f"attn_pool.kv.{kind}")]
        )
        state[f"attn_pool.attn.out_proj.{kind}"] = pool.pop(f"attn_pool.proj.{kind}")
    state |= renamed(
        pool, ("attn_pool.norm", "attn_pool.layernorm"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")
    )
    state = {f"module.visual.{key}": value for key, value in state.items()}
    text = ("transformer.resblocks.0.ln_1.weight", "token_embedding.weight", "positional_embedding", "text_projection")
    return {**state, "module.visual.proj": torch.ones(16, 8), **{f"module.{key}": torch.ones(8, 8) for key in text}}


def as_dinov2(state):
    state = renamed(state, ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"))
    return {**state, "mask_token": torch.zeros(1, 16)}


def as_dinov2_with_registers(state):
    first = torch.full((1, 1, 16), 0.5)  # what timm adds to the class token, exactly
    state["cls_token"] = state["cls_token"].round(decimals=1).clamp(-1, 1) * 0 + 0.25
    both = torch.cat([first, state["pos_embed"]], 1)
    named = {"register_tokens": state.pop("reg_token"), "cls_token": state["cls_token"] - first, "pos_embed": both}
    return {f"backbone.{key}": value for key, value in {**state, **named, "mask_token": torch.zeros(1, 16)}.items()}


def as_dinov3(state):
    state = renamed(state, ("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"))
    for index in range(2):
        at = f"blocks.{index}.attn."
        q, v = state.pop(f"{at}q_bias"), state.pop(f"{at}v_bias")
        state[f"{at}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
        state[f"{at}qkv.bias_mask"] = torch.ones(48)
    return {**state, "mask_token": torch.zeros(1, 16), "rope_embed.periods": torch.ones(2)}


def as_eva(state):
    state = renamed(
        state, ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"), ("mlp.norm", "mlp.ffn_ln"),
        ("attn.norm", "attn.inner_attn_ln"), ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"),
    )  # fmt: skip
    tower = {f"visual.{key}": value for key, value in state.items()}
    more = {"visual.rope.freqs_cos": torch.ones(16, 8), "text.token_embedding.weight": torch.ones(9, 8)}
    return {**tower, **more, "logit_scale": torch.ones(())}


def as_aimv2(state):
    return renamed(
        state, ("patch_embed.", "preprocessor.patchifier."), ("pos_embed", "preprocessor.pos_embed"),
        ("blocks.", "trunk.blocks."), ("norm1", "norm_1"), ("norm2", "norm_2"), ("mlp.fc1_x", "mlp.fc3"),
        ("mlp.fc1_g", "mlp.fc1"),
    ) | {"trunk.post_trunk_norm.weight": torch.ones(16)}  # fmt: skip


def as_mae(state):
    more = {"decoder_pred.weight": torch.ones(3, 8), "decoder_blocks.0.norm1.weight": torch.ones(8),
            "decoder_pos_embed": torch.ones(1, 17, 8), "mask_token": torch.ones(1, 1, 8)}  # fmt: skip
    return {**state, **more}


@pytest.mark.parametrize(
    ("name", "layout", "as_theirs", "wrapper"),
    [
        ("tiny_vit_16", "timm", dict, None),
        ("tiny_vit_16", "timm", lambda state: {f"module.{k}": v for k, v in state.items()}, "model_ema"),
        ("tiny_pe_core", "Perception Encoder", as_perception_encoder, None),
        ("tiny_dinov2_gated", "DINOv2", as_dinov2, None),
        ("tiny_reg4_dinov2", "DINOv2", as_dinov2_with_registers, "teacher"),
        ("tiny_dinov3_qkvb", "DINOv3", as_dinov3, "model"),
        ("tiny_eva02", "EVA", as_eva, "module"),
        ("tiny_aimv2", "AIMv2", as_aimv2, None),
        ("tiny_vit_16", "MAE", as_mae, "model"),
    ],
)
def test_the_authors_own_layouts(tmp_path, name, layout, as_theirs, wrapper):
    state = timm_state(name)
    theirs = as_theirs(dict(state))
    if name == "tiny_reg4_dinov2":
        state["cls_token"] = torch.full((1, 1, 16), 0.25)
    if name == "tiny_aimv2":
        state["norm.weight"] = torch.ones(16)
    save_file(state, tmp_path / "timm.safetensors")
    torch.save({wrapper: theirs, "epoch": 1} if wrapper else theirs, tmp_path / "theirs.pth")
    plain, backbone = (load(name, tmp_path / file) for file in ("timm.safetensors", "theirs.pth"))
    assert backbone.origin.layout == layout
    ours, expected = backbone.vit.state_dict(), plain.vit.state_dict()
    different = [key for key in expected if not torch.equal(ours[key], expected[key]) and not key.startswith("norm.")]
    assert not different
    clips = torch.randn(1, 1, 3, 16, 16)
    assert torch.equal(backbone(clips)[1].query, plain(clips)[1].query)


def refusal(name, path, **more):
    with pytest.raises(BackboneError) as caught:
        load(name, path, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_told_in_groups(tmp_path):
    state = timm_state("tiny_vit_16")
    part = {key: value for key, value in state.items() if not key.startswith("blocks.1.")}
    save_file({**part, "blocks.0.attn.bonus": torch.ones(1), "neck.a": torch.ones(1)}, tmp_path / "part.safetensors")
    said = refusal("tiny_vit_16", tmp_path / "part.safetensors")
    assert "part.safetensors (layout: timm) does not fit tiny_vit_16: " in said
    assert "the file has 1 blocks of width 16, the model 2 of width 16" in said
    assert "missing: blocks.1 (12 tensors, such as blocks.1.attn.proj.bias)" in said
    assert "unexpected: blocks.0.attn.bonus, neck.a" in said

    save_file(state, tmp_path / "whole.safetensors")
    said = refusal("tiny_vit_wide_16", tmp_path / "whole.safetensors")
    assert "2 blocks of width 16, the model 3 of width 32" in said
    assert "missing: blocks.2 (12 tensors" in said
    assert "other shapes: cls_token (1, 1, 32) expected, (1, 1, 16) came, " in said

    no_scale = {key: value for key, value in timm_state("tiny_dinov2").items() if "ls1" not in key}
    save_file(no_scale, tmp_path / "no_scale.safetensors")
    assert "missing: blocks.0–1.ls1.gamma (2);" in refusal("tiny_dinov2", tmp_path / "no_scale.safetensors")


@pytest.mark.parametrize(
    ("golden", "block"),
    [
        ("hf_vit", "vit.encoder.layer.1."),
        ("hf_clip_gelu", "vision_model.encoder.layers.1."),
        ("hf_dinov3_gated", "layer.1."),
        ("open_clip", "module.visual.transformer.resblocks.1."),
        ("open_clip_tiny_siglip_16", "visual.trunk.blocks.1."),
    ],
)
def test_every_layout_refuses_a_partial_match(golden, block, tmp_path):
    state, _, _, metadata = open_layout(GOLDEN / "layouts" / f"{golden}.safetensors")
    of_block = sorted(key for key in state if key.startswith(block))
    for lost in (of_block[0], of_block[-1], block):
        less = {key: value for key, value in state.items() if not key.startswith(lost)}
        save_file(less, tmp_path / "less.safetensors")
        assert "missing: blocks.1" in refusal(metadata["architecture"], tmp_path / "less.safetensors")
    save_file({**state, f"{block}bonus.weight": torch.ones(1)}, tmp_path / "more.safetensors")
    assert ": unexpected: " in refusal(metadata["architecture"], tmp_path / "more.safetensors")


def test_a_bias_the_name_has_no_place_for_must_be_zero(tmp_path, capsys):
    golden = GOLDEN / "layouts" / "hf_dinov3.safetensors"
    state, *_ = open_layout(golden)
    save_file(state, tmp_path / "biased.safetensors")
    said = refusal("tiny_dinov3", tmp_path / "biased.safetensors")
    assert "unexpected: blocks.0–1 (4 tensors, such as blocks.0.attn.q.bias)" in said
    zeros = {k: torch.zeros_like(v) if k.endswith(("q_proj.bias", "v_proj.bias")) else v for k, v in state.items()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    assert load("tiny_dinov3", tmp_path / "zeros.safetensors").origin.layout == "Hugging Face DINOv3"

    theirs = as_dinov3(timm_state("tiny_dinov3_qkvb"))
    save_file(theirs, tmp_path / "original.safetensors")
    said = refusal("tiny_dinov3", tmp_path / "original.safetensors")
    assert "unexpected: blocks.0–1.attn.qkv_bias (2)" in said
    for index in range(2):
        bias = theirs[f"blocks.{index}.attn.qkv.bias"]
        bias[:16], bias[32:] = 0, 0
    save_file(theirs, tmp_path / "original.safetensors")
    assert load("tiny_dinov3", tmp_path / "original.safetensors").origin.layout == "DINOv3"
    assert capsys.readouterr().out == ""


def test_parts_and_rounded_weights_are_told(tmp_path):
    state = timm_state("tiny_vit_16")
    half = dict(list(state.items())[:20])
    save_file(half, tmp_path / "model-00001-of-00002.safetensors")
    assert "give a file with all parts" in refusal("tiny_vit_16", tmp_path / "model-00001-of-00002.safetensors")
    save_file({k: (v * 100).to(torch.int8) if "mlp" in k else v for k, v in state.items()}, tmp_path / "q.safetensors")
    assert "integers, which cannot be trained weights: blocks.0–1 (8 tensors" in refusal(
        "tiny_vit_16", tmp_path / "q.safetensors"
    )
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    weight = load("tiny_vit_16", tmp_path / "half.safetensors").vit.blocks[0].attn.qkv.weight
    assert torch.equal(weight, state["blocks.0.attn.qkv.weight"].half().float())


def test_a_tensor_under_two_names_is_refused(tmp_path):
    state, *_ = open_layout(GOLDEN / "layouts" / "hf_vit.safetensors")
    state["vit.encoder.layer.0.attention.q_proj.weight"] = torch.ones(16, 16)
    save_file(state, tmp_path / "twice.safetensors")
    assert "the file holds blocks.0.attn.q.weight under two names" in refusal(
        "tiny_vit_16", tmp_path / "twice.safetensors"
    )


def test_an_openai_archive_in_parts_is_told(tmp_path):
    from evl.backbones.weights.files import read_weights

    state = {**read_weights(GOLDEN / "openai_clip_tiny.pt")[0], "input_resolution": torch.tensor(32)}
    for lost, sentence in (
        ("visual.transformer.resblocks.2.ln_1.bias", "missing: blocks.2.norm1.bias"),
        ("visual.positional_embedding", "missing visual.positional_embedding"),
    ):
        torch.save({key: value for key, value in state.items() if key != lost}, tmp_path / "part.pt")
        assert sentence in refusal("openai_clip", tmp_path / "part.pt")


def test_unknown_layouts_and_several_towers(tmp_path):
    save_file({f"conv{i}.weight": torch.ones(1) for i in range(12)}, tmp_path / "net.safetensors")
    said = refusal("tiny_vit_16", tmp_path / "net.safetensors")
    assert "layout of these weights is not known: conv0–11.weight (12). Known are" in said
    state = timm_state("tiny_vit_16")
    both = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    assert "several image encoders (student.*, teacher.*)" in refusal("tiny_vit_16", tmp_path / "both.pth")


@pytest.mark.parametrize(("name", "golden"), [("tiny_clip_16", "open_clip"), ("tiny_clip_16", "hf_clip_gelu")])
def test_another_image_size_is_told_or_taken(tmp_path, name, golden):
    path, frames, tokens, _ = write_layout(tmp_path / "own", GOLDEN / "layouts" / f"{golden}.safetensors")
    said = refusal("tiny_clip_32", path)
    assert "pos_embed (1, 65, 16) expected, (1, 17, 16) came: the file is for 16 px; set backbone.image_size=16" in said
    assert said.endswith("or use tiny_clip_16")
    same, own = load("tiny_clip_32", path, image_size=16), load(name, path)
    assert same.weights_hash == own.weights_hash
    assert_close(same(frames[:, None])[1].tokens[:, 0], tokens[1])
    larger, other = load("tiny_clip_32", path, image_size=24), load(name, path, image_size=24)
    assert larger.weights_hash == own.weights_hash
    assert torch.equal(larger.vit.pos_embed, other.vit.pos_embed)  # in one step, not by way of 32 px
