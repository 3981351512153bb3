"""Where weights come from decides their activation, and is recorded."""

import json
import logging

import pytest
import timm
from safetensors.torch import save_file

import tests.backbones.tiny  # noqa: F401  (registers the architectures)
from evl.backbones import create_backbone
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.backbones.test_weights_in import load, refusal, timm_state, write_layout
from tests.helpers import GOLDEN


def test_the_origin_decides_the_activation(tmp_path, caplog):
    quick = GOLDEN / "layouts" / "hf_clip_quick_gelu.safetensors"
    path, *_ = write_layout(tmp_path / "hf", quick)
    assert refusal("tiny_clip_16", path).endswith(
        "has a config.json beside it with hidden_act quick_gelu, so it was trained with QuickGELU, but tiny_clip_16 "
        "uses GELU: "
        "features would be wrong without any error. Use tiny_clip_quickgelu_16"
    )
    assert load("tiny_clip_quickgelu_16", path).origin.activation == "quick_gelu"
    (path.parent / "config.json").write_text('{"model_type": "clip", "vision_config": {}}')
    assert "hidden_act quick_gelu" in refusal("tiny_clip_16", path)  # what transformers takes then
    path, *_ = write_layout(tmp_path / "oc", GOLDEN / "layouts" / "open_clip.safetensors")
    said = refusal("tiny_clip_quickgelu_16", path)
    assert "an open_clip_config.json beside it with quick_gelu false, so it was trained with GELU" in said
    assert said.endswith("Use tiny_clip_16")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    for name, config in (("hf", "config.json"), ("oc", "open_clip_config.json")):
        for content in (None, "{", "[1]"):
            file = tmp_path / name / config
            file.unlink() if content is None else file.write_text(content)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                backbone = load("tiny_clip_16", tmp_path / name / "model.safetensors")
            assert backbone.origin.activation == "gelu"
            assert "the activation that these weights were trained with is unknown" in caplog.text
            assert (
                "tiny_clip_16 computes gelu. If that is wrong, set backbone.name=tiny_clip_quickgelu_16" in caplog.text
            )


def test_a_model_that_is_known_by_its_hash_needs_no_notice(tmp_path, caplog):
    path, *_ = write_layout(tmp_path / "oc", GOLDEN / "layouts" / "open_clip.safetensors")
    (tmp_path / "oc" / "open_clip_config.json").unlink()
    create_backbone(BackboneConfig("tiny_clip_16", weights=str(path)), 2, trust_origin=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_from_timms_hub_says_its_name(tmp_path):
    save_file(timm_state("tiny_clip_16"), tmp_path / "model.safetensors")
    config = {"architecture": "vit_base_patch16_clip_224", "pretrained_cfg": {"tag": "openai"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "vit_base_patch16_clip_224.openai, so it was trained with QuickGELU" in refusal(
        "tiny_clip_16", tmp_path / "model.safetensors"
    )
    config["pretrained_cfg"]["tag"] = "laion2b"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load("tiny_clip_16", tmp_path / "model.safetensors").origin.activation == "gelu"


def test_clip_names_of_timm_with_the_wrong_activation():
    """By open_clip's table of pretrained weights (3.3): what was trained with QuickGELU is refused under GELU."""

    from evl.backbones.weights.unrecorded import refuse_wrong_activation

    refused = set()
    for name in timm.list_pretrained("vit_*_clip_*"):
        try:
            refuse_wrong_activation(name)
        except BackboneError:
            refused.add(name)
    b32, b16, l14, h14 = (
        f"vit_{size}_clip_" for size in ("base_patch32", "base_patch16", "large_patch14", "huge_patch14")
    )
    quick = {
        *(f"{size}224.{tag}" for size in (b32, b16, l14) for tag in ("openai", "metaclip_400m", "metaclip_2pt5b")),
        *(f"{h14}224.{tag}" for tag in ("dfn5b", "metaclip_2pt5b", "metaclip2_worldwide")),
        *(f"{b32}224.laion400m_e32", f"{b16}224.dfn2b", f"{l14}224.dfn2b", f"{l14}336.openai", f"{h14}378.dfn5b"),
        "vit_gigantic_patch14_clip_224.metaclip_2pt5b",
    }
    known = quick | {name for name in timm.list_pretrained("vit_*_clip_*") if "quickgelu" in name}
    known |= {
        *(f"{size}224.{tag}" for size in (b32, b16, l14) for tag in ("laion2b", "datacompxl")),
        *(f"{b16}224.laion400m_e32", f"{l14}224.laion400m_e32", f"{l14}224.dfn2b_s39b", f"{h14}224.laion2b"),
        *(f"{h14}224.metaclip_altogether", f"{h14}378.metaclip2_worldwide", f"{b16}224.openai_ft_in1k"),
    }
    assert refused & known == quick
    with pytest.raises(BackboneError, match=r"and use vit_base_patch16_clip_quickgelu_224 with backbone\.weights=FILE"):
        refuse_wrong_activation("vit_base_patch16_clip_224.dfn2b")


@pytest.mark.parametrize(
    ("name", "activation"),
    [("tiny_siglip_16", "gelu_tanh"), ("tiny_aimv2", "silu"), ("tiny_dinov2_gated", "silu"), ("tiny_eva02", "silu"),
     ("tiny_pe_core", "gelu"), ("evl_clip_tiny", "gelu")],
)  # fmt: skip
def test_origin_without_a_file(name, activation):
    origin = create_backbone(BackboneConfig(name, pretrained=False), 1).origin
    assert origin.activation == activation
    assert origin.kind == "random"
