"""Files whose tensors all fit a name that would compute something else with them."""

import json
import logging

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from evl.backbones import create_backbone
from evl.config import BackboneConfig
from tests.backbones.test_weights_in import (
    as_dinov3,
    as_perception_encoder,
    load,
    open_layout,
    refusal,
    timm_state,
    write_layout,
)
from tests.helpers import GOLDEN, assert_close

LAYOUTS = GOLDEN / "layouts"
ARCHIVE = GOLDEN / "openai_clip_tiny.pt"


def clip_of(quick_gelu, width=16, head_width=8):
    vision = dict(layers=2, width=width, head_width=head_width, patch_size=4, image_size=16)
    text = dict(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return open_clip.CLIP(8, vision, text, quick_gelu=quick_gelu).eval()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """open_clip's own CLIP as TorchScript: {GELU or QuickGELU, scripted or traced: file}."""
    folder = tmp_path_factory.mktemp("scripts")
    for quick in (False, True):
        torch.jit.script(clip_of(quick)).save(str(folder / f"script{quick:d}.pt"))
        torch.jit.script(clip_of(quick, 64, 64).half()).save(str(folder / f"half{quick:d}.pt"))
    frames = torch.zeros(1, 3, 16, 16)
    torch.jit.trace_module(clip_of(False), {"encode_image": frames}, check_trace=False).save(str(folder / "trace0.pt"))
    return folder


@pytest.mark.parametrize("file", ["script0.pt", "script1.pt", "trace0.pt", "half0.pt", "half1.pt"])
def test_open_clips_torchscript_is_not_taken_for_openais(scripted, file):
    assert "it may not be OpenAI's" in refusal("openai_clip", scripted / file)


@pytest.mark.parametrize("file", ["script0.pt", "script1.pt", "trace0.pt"])
def test_the_classes_in_torchscript_tell_the_activation(scripted, file, caplog):
    quick = file.endswith("1.pt")
    names = ("tiny_clip_16", "tiny_clip_quickgelu_16")
    said = refusal(names[not quick], scripted / file)
    assert (
        f"has TorchScript classes with this activation, so it was trained with {'QuickGELU' if quick else 'GELU'}, but"
        in said
    )
    assert said.endswith(f"Use {names[quick]}")
    backbone, clip = load(names[quick], scripted / file), clip_of(quick)
    assert backbone.origin.layout == "open_clip"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    tokens, frames = [], torch.randn(2, 3, 16, 16)
    for block in clip.visual.transformer.resblocks:
        block.register_forward_hook(lambda module, args, output: tokens.append(output))
    with torch.no_grad():
        clip.visual(frames)
    for ours, theirs in zip(backbone(frames[:, None]), tokens, strict=True):
        assert_close(ours.tokens[:, 0], theirs)


class Nest(torch.nn.Module):
    def forward(self, frames):
        return frames


def archive_of(state, path):
    """A state dict as TorchScript, of classes that say nothing."""
    top = Nest()
    for name, value in state.items():
        place, *parents = top, *name.split(".")
        for part in parents[:-1]:
            if not hasattr(place, part):
                place.add_module(part, Nest())
            place = getattr(place, part)
        place.register_buffer(parents[-1], value)
    torch.jit.script(top).save(str(path))
    return path


def test_openais_archives_are_known_by_their_numbers_or_taken_by_their_form_with_a_notice(tmp_path, caplog):
    from evl.backbones.weights.files import read_weights

    state = read_weights(ARCHIVE)[0]
    numbers = {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}
    whole = archive_of({**state, **numbers}, tmp_path / "whole.pt")
    own = load("openai_clip", whole)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    formed = load("openai_clip", ARCHIVE)
    assert "read as OpenAI's because it is TorchScript in half precision, but it lacks the numbers" in caplog.text
    assert formed.weights_hash == own.weights_hash
    caplog.clear()
    create_backbone(BackboneConfig("openai_clip", weights=str(ARCHIVE)), 2, trust_origin=True)
    assert not caplog.records
    wide = archive_of({name: value.float() for name, value in state.items()}, tmp_path / "wide.pt")
    assert "it may not be OpenAI's" in refusal("openai_clip", wide)
    assert create_backbone(BackboneConfig("openai_clip", weights=str(wide)), 2, trust_origin=True)


def test_clip_and_perception_encoder_do_not_load_into_each_other(tmp_path):
    """Names and shapes of what the blocks read are the same; only rotary positions differ."""
    perception = timm_state("tiny_pe_core")
    save_file(as_perception_encoder(dict(perception)), tmp_path / "authors.safetensors")
    said = refusal("tiny_clip_16", tmp_path / "authors.safetensors")
    assert "has the layout of Perception Encoder, whose positions are rotary, but tiny_clip_16 has none" in said
    save_file(perception, tmp_path / "timm.safetensors")
    said = refusal("tiny_clip_16", tmp_path / "timm.safetensors")
    assert "has attention pooling (attn_pool.*), but tiny_clip_16 has none" in said
    for golden, layout in (("open_clip", "open_clip"), ("hf_clip_gelu", "Hugging Face CLIP")):
        path, *_ = write_layout(tmp_path / golden, LAYOUTS / f"{golden}.safetensors")
        assert f"has the layout of {layout}, without rotary positions" in refusal("tiny_pe_core", path)
    state, *_ = open_layout(LAYOUTS / "open_clip.safetensors")
    openai = {key.removeprefix("module."): value for key, value in state.items()}
    save_file({**openai, "input_resolution": torch.tensor(16)}, tmp_path / "openai.safetensors")
    assert "has the layout of OpenAI CLIP, without rotary" in refusal("tiny_pe_core", tmp_path / "openai.safetensors")
    save_file(timm_state("tiny_clip_16"), tmp_path / "clip.safetensors")
    said = refusal("tiny_pe_core", tmp_path / "clip.safetensors")
    assert "has no attention pooling (attn_pool.*), but tiny_pe_core has it" in said
    said = refusal("tiny_pe_spatial", tmp_path / "clip.safetensors")
    assert "has a norm after its last block, but tiny_pe_spatial has none" in said


def test_perception_encoders_spatial_towers_have_clips_names_and_load(tmp_path):
    state = timm_state("tiny_pe_spatial")
    save_file(as_perception_encoder(dict(state), pools=False), tmp_path / "authors.safetensors")
    save_file(state, tmp_path / "timm.safetensors")
    one, two = (load("tiny_pe_spatial", tmp_path / f"{file}.safetensors") for file in ("authors", "timm"))
    assert one.weights_hash == two.weights_hash


def test_siglip_is_the_same_with_and_without_its_pooling(tmp_path):
    path, frames, tokens, _ = write_layout(tmp_path / "hf", LAYOUTS / "hf_siglip.safetensors")
    assert_close(load("tiny_siglip_gap_16", path)(frames[:, None])[1].tokens[:, 0], tokens[1])
    headless = {
        key: value for key, value in open_layout(LAYOUTS / "hf_siglip.safetensors")[0].items() if "head" not in key
    }
    save_file(headless, path)
    assert "has the layout of SigLIP, but tiny_gap_16 is not a SigLIP" in refusal("tiny_gap_16", path)
    save_file(timm_state("tiny_siglip_16"), tmp_path / "map.safetensors")
    save_file(timm_state("tiny_siglip_gap_16"), tmp_path / "gap.safetensors")
    for name in ("tiny_siglip_16", "tiny_siglip_gap_16"):
        for file in ("map", "gap"):
            assert load(name, tmp_path / f"{file}.safetensors")
    assert "has attention pooling" in refusal("tiny_gap_16", tmp_path / "map.safetensors")


@pytest.mark.parametrize(
    ("theirs", "name", "sentence"),
    [
        ("tiny_siglip_gap_16", "tiny_gap_16", "beside it, with 2 heads, but tiny_gap_16 has 4 heads"),
        ("tiny_pe_spatial", "tiny_clip_16", "with rotary positions (RotaryEmbeddingCat, temperature 10000.0, "),
        (
            "tiny_clip_16",
            "tiny_vit_16",
            "with an epsilon of 1e-05 in its norms, but tiny_vit_16 has an epsilon of 1e-06",
        ),
    ],
)
def test_timms_config_tells_another_architecture(tmp_path, theirs, name, sentence):
    save_file(timm_state(name), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": theirs, "pretrained_cfg": {"tag": "x"}}))
    said = refusal(name, tmp_path / "model.safetensors")
    assert sentence in said
    assert said.endswith(f"Use {theirs}")
    for same in (name, "tiny_vit_wide_16", "resnet18", "no_such_model", ["x"], None):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": same}))
        assert load(name, tmp_path / "model.safetensors")


def vision_of(metadata):
    config = json.loads(metadata["config"])
    return config.get("vision_config", config)


@pytest.mark.parametrize(
    ("golden", "key", "value", "built"),
    [
        ("hf_vit", "num_attention_heads", 4, 2),
        ("hf_siglip2", "num_attention_heads", 1, 2),
        ("hf_clip_gelu", "layer_norm_eps", 1e-6, 1e-5),
        ("hf_dinov2", "layer_norm_eps", 1e-5, 1e-6),
        ("hf_aimv2", "rms_norm_eps", 1e-3, 1e-5),
        ("hf_dinov3", "rope_theta", 10000, 100.0),
    ],
)
def test_hugging_faces_config_may_not_contradict(tmp_path, golden, key, value, built):
    path, _, _, metadata = write_layout(tmp_path, LAYOUTS / f"{golden}.safetensors")
    name, config = metadata["architecture"], vision_of(metadata)
    forms = [{**config, key: value}, {"vision_config": {**config, key: value}}]
    if key == "rope_theta":
        forms.append({**config, "rope_parameters": {key: value}})
    for form in forms:
        (tmp_path / "config.json").write_text(json.dumps(form))
        assert f"has {key} {value} by the config.json beside it, but {name} has {built}: " in refusal(name, path)
    for odd in ("x", None, [2], True):
        (tmp_path / "config.json").write_text(json.dumps({**config, key: odd}))
        assert load(name, path)


def test_an_epsilon_that_is_not_seen_is_no_contradiction(tmp_path):
    path, *_ = write_layout(tmp_path, LAYOUTS / "hf_vit.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "vit", "layer_norm_eps": 1e-12}')  # transformers' default
    assert load("tiny_vit_16", path)


def test_open_clips_config_tells_the_width_of_heads(tmp_path):
    path, *_ = write_layout(tmp_path, LAYOUTS / "open_clip.safetensors")
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["head_width"] = 16
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert "has head_width 16 by the open_clip_config.json beside it, but tiny_clip_16 has 8" in refusal(
        "tiny_clip_16", path
    )


def test_older_configs_of_clip(tmp_path):
    """``vision_config_dict`` counts, beside a null or another ``vision_config``."""
    path, _, _, metadata = write_layout(tmp_path, LAYOUTS / "hf_clip_gelu.safetensors")
    config = vision_of(metadata)
    for other in (None, {**config, "hidden_act": "quick_gelu"}):
        old = {"model_type": "clip", "vision_config": other, "vision_config_dict": config}
        (tmp_path / "config.json").write_text(json.dumps(old))
        assert load("tiny_clip_16", path).origin.activation == "gelu"
        assert "hidden_act gelu, so it was trained with GELU" in refusal("tiny_clip_quickgelu_16", path)
    old = {"model_type": "clip", "vision_config": {**config, "num_attention_heads": 4}, "vision_config_dict": None}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert "num_attention_heads 4 by the config.json beside it, but tiny_clip_16 has 2" in refusal("tiny_clip_16", path)
    (tmp_path / "config.json").write_text('{"model_type": "clip", "vision_config": null}')
    assert "hidden_act quick_gelu" in refusal("tiny_clip_16", path)  # transformers' default


def test_a_values_bias_that_has_no_place_must_be_zero(tmp_path):
    theirs = as_dinov3(timm_state("tiny_dinov3_qkvb"))
    for index in range(2):
        theirs[f"blocks.{index}.attn.qkv.bias"][:32] = 0
    save_file(theirs, tmp_path / "values.safetensors")
    assert "unexpected: blocks.0–1.attn.qkv_bias (2)" in refusal("tiny_dinov3", tmp_path / "values.safetensors")


def test_a_keys_bias_that_has_no_place_must_be_zero(tmp_path):
    state, *_ = open_layout(LAYOUTS / "hf_dinov3.safetensors")
    name = next(key for key in state if key.endswith("0.attention.q_proj.bias")).replace("q_proj", "k_proj")
    for value, fits in ((torch.zeros(16), True), (torch.ones(16), False)):
        save_file({**state, name: value}, tmp_path / "keys.safetensors")
        if fits:
            assert load("tiny_dinov3_qkvb", tmp_path / "keys.safetensors")
        else:
            assert "unexpected: blocks.0" in refusal("tiny_dinov3_qkvb", tmp_path / "keys.safetensors")


def test_a_patch_kernel_without_an_order_is_refused(tmp_path):
    state = timm_state("tiny_vit_16")
    kernel = state["patch_embed.proj.weight"]
    for matrix in (kernel.flatten(1), kernel.permute(0, 2, 3, 1).flatten(1)):
        save_file({**state, "patch_embed.proj.weight": matrix.contiguous()}, tmp_path / "flat.safetensors")
        said = refusal("tiny_vit_16", tmp_path / "flat.safetensors")
        assert "patch_embed.proj.weight is a matrix (16, 48) with an unknown order" in said
    state, *_ = open_layout(LAYOUTS / "hf_vit.safetensors")
    name = next(key for key in state if key.endswith("patch_embeddings.projection.weight"))
    save_file({**state, name: state[name].flatten(1)}, tmp_path / "hf.safetensors")
    assert "is a matrix (16, 48)" in refusal("tiny_vit_16", tmp_path / "hf.safetensors")


def test_complex_numbers_are_called_so(tmp_path):
    save_file({k: v.to(torch.complex64) for k, v in timm_state("tiny_vit_16").items()}, tmp_path / "c.safetensors")
    said = refusal("tiny_vit_16", tmp_path / "c.safetensors")
    assert "complex numbers, which cannot be trained weights: blocks.0–1" in said
    assert "whole" not in said


def test_more_wrappers_and_what_came_instead(tmp_path):
    state = timm_state("tiny_vit_16")
    for wrapper in ("net", "model_state_dict"):
        torch.save({"epoch": 1, wrapper: state}, tmp_path / "w.pt")
        assert torch.equal(load("tiny_vit_16", tmp_path / "w.pt").vit.cls_token, state["cls_token"])
    torch.save({"epoch": 1, "my weights": state}, tmp_path / "w.pt")
    said = refusal("tiny_vit_16", tmp_path / "w.pt")
    assert said.endswith("no named tensors, also not in a known wrapper; its keys are 'epoch', 'my weights'")
    torch.save({}, tmp_path / "w.pt")
    assert refusal("tiny_vit_16", tmp_path / "w.pt").endswith("holds no named tensors")
