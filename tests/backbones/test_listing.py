"""What ``evl backbones`` lists: names, families, sizes, cost, licences, and where weights lie."""

import json
import socket

import huggingface_hub.constants
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from evl.backbones import create_backbone, list_backbones
from evl.backbones.listing import ORDER, family_of
from evl.backbones.timm_vit import frame_macs, spec_of
from evl.config import BackboneConfig
from tests.backbones.families import FAMILIES, tiny
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_EACH = {
    "evl_clip_tiny": "evl",
    "vit_base_patch16_clip_quickgelu_224.openai": "CLIP",
    "vit_huge_patch14_clip_quickgelu_378.dfn5b": "CLIP",
    "vit_base_patch16_siglip_224.webli": "SigLIP",
    "vit_so400m_patch14_siglip_gap_224.pali_mix": "SigLIP (PaliGemma)",
    "vit_base_patch16_siglip_224.v2_webli": "SigLIP 2",
    "eva02_base_patch16_clip_224.merged2b": "EVA-02-CLIP",
    "eva_giant_patch14_clip_224.merged2b": "EVA-CLIP",
    "eva02_large_patch14_448.mim_m38m_ft_in1k": "EVA-02",
    "eva_large_patch14_196.in22k_ft_in1k": "EVA",
    "vit_pe_spatial_base_patch16_512.fb": "Perception Encoder",
    "vit_base_patch16_dinov3_qkvb.lvd1689m": "DINOv3",
    "vit_base_patch16_dinov3_qkvb.eupe_lvd1689m": "EUPE",
    "vit_base_patch14_reg4_dinov2.lvd142m": "DINOv2",
    "vit_base_patch16_224.dino": "DINO",
    "vit_base_patch16_224.mae": "MAE",
    "aimv2_large_patch14_224.apple_pt_dist": "AIMv2",
    "vit_huge_patch14_gap_224.in22k_ijepa": "I-JEPA",
    "vit_base_patch16_radio_v3.c_radio": "C-RADIO",
    "deit3_base_patch16_224.fb_in22k_ft_in1k": "DeiT III",
    "deit_tiny_distilled_patch16_224.fb_in1k": "DeiT",
    "flexivit_small.1200ep_in1k": "FlexiViT",
    "beit3_base_patch16_224.pt": "BEiT-3",
    "vit_base_patch16_rope_mixed_ape_224.naver_in1k": "RoPE-ViT",
    "vit_base_patch16_224.augreg_in21k_ft_in1k": "ViT (ImageNet-21k)",
    "vit_base_patch16_224.augreg_in1k": "ViT (ImageNet-1k)",
    "vit_giant_patch14_224": "ViT",
}


@pytest.mark.parametrize("name", ONE_EACH)
def test_families_have_the_fields_names(name):
    assert family_of(name) == ONE_EACH[name]
    assert family_of(name) in ORDER


@pytest.mark.parametrize("row", FAMILIES)
def test_counted_cost_is_what_torch_counts(row):
    vit = tiny(row)
    patch = vit.patch_embed.patch_size[0]
    vit.set_input_size(img_size=(3 * patch, 5 * patch))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vit.forward_features(torch.zeros(1, 3, 3 * patch, 5 * patch))
    assert frame_macs(vit, spec_of(vit, row)) == counter.get_total_flops() / 2  # a multiply-add is two of torch's


def test_sizes_listed_are_those_of_the_model_itself():
    for listed in list_backbones("test_vit*") + list_backbones("evl_*"):
        backbone = create_backbone(BackboneConfig(listed.name, pretrained=listed.family == "evl"), 1)
        assert vars(listed.spec) == {**vars(backbone.spec), "name": listed.spec.name}
        assert listed.parameters == sum(parameter.numel() for parameter in backbone.parameters())
        assert listed.macs == frame_macs(backbone.vit, backbone.spec)


def test_a_word_is_of_the_name_or_of_the_family():
    def names(word):
        return {one.name for one in list_backbones(word)}

    quick = {f"vit_{size}_clip_quickgelu_224.openai" for size in ("base_patch16", "base_patch32", "large_patch14")}
    assert names("clip_quickgelu_224.openai") == names("CLIP_quickgelu_224.OpenAI") == quick
    assert names("SigLIP 2") == names("siglip2") == {name for name in names("siglip") if family_of(name) == "SigLIP 2"}
    assert set() < names("siglip2") < names("siglip")
    assert names("perception") == names("vit_pe_*")
    assert names("dinov3") >= {"vit_base_patch16_dinov3.lvd1689m"}
    assert names("evl_*") == {"evl_clip_tiny"}
    assert names("swin") == names("hiera") == names("r50") == set()
    found = names("vit_base_patch16_clip_224.openai")
    assert found
    assert "vit_base_patch16_clip_224.openai" not in found  # GELU would be wrong for that one


def test_everything_is_listed_by_family_and_size_with_whole_names(capsys, monkeypatch):
    from evl.cli import common

    found = list_backbones()
    assert len({one.name for one in found}) == len(found) > 350
    keys = [(ORDER.index(one.family), one.macs, one.name) for one in found]
    assert keys == sorted(keys)
    assert {one.family for one in found} == set(ORDER)
    monkeypatch.setattr("evl.backbones.list_backbones", lambda word: found if word == "" else [])  # it takes a second
    for columns in (80, 149, 150, 200):
        monkeypatch.setattr(common.output, "_width", columns)
        code, out, _ = run_command(capsys, "backbones")
        assert code == 0
        lines = out.splitlines()
        assert max(len(line) for line in lines) <= columns
        assert {one.name for one in found} <= {word for line in lines for word in line.split()}
        assert "multiply-add counted once" in " ".join(out.split())


def test_licences_are_what_timm_states_or_unknown(capsys):
    licenses = {one.name: (one.license, one.source) for one in list_backbones("vit_*")}
    assert licenses["vit_base_patch16_dinov3.lvd1689m"] == ("dinov3-license", "timm/vit_base_patch16_dinov3.lvd1689m")
    assert licenses["vit_base_patch16_224.mae"][0] == "cc-by-nc-4.0"
    assert licenses["vit_base_patch16_224.bamboo"][0] is None
    assert licenses["vit_gigantic_patch14_224"] == (None, None)  # an architecture without weights has no licence
    out = run_command(capsys, "backbones", "bamboo")[1]
    assert "unknown" in out
    assert "no weights" in run_command(capsys, "backbones", "vit_gigantic_patch14_224")[1]


def test_weights_on_this_machine_are_found_without_a_network(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked a network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def files(word):
        return {one.name: one.file for one in list_backbones(word)}

    hub, url = "test_vit.r160_in1k", "vit_huge_patch14_gap_224.in1k_ijepa"
    assert files(hub) == {hub: None}
    assert files(url) == {url: None}
    folder = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    weights = folder / "snapshots" / "abc" / "model.safetensors"
    weights.write_bytes(b"")
    assert files(hub) == {hub: str(weights)}
    checkpoint = tmp_path / "torch" / "hub" / "checkpoints" / timm.get_pretrained_cfg(url).url.rpartition("/")[2]
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    assert files(url) == {url: str(checkpoint)}


def test_json_says_all(capsys):
    code, out, _ = run_command(capsys, "backbones", "vit_base_patch16_clip_quickgelu_224.openai", "--json")
    (one,) = json.loads(out)
    assert code == 0
    assert one["family"] == "CLIP"
    assert (one["width"], one["depth"], one["grid"], one["image_size"]) == (768, 12, [14, 14], [224, 224])
    assert one["parameters"] == 85_799_424
    assert one["gflops"] == pytest.approx(17.56, abs=0.01)
    assert one["source"] == "timm/vit_base_patch16_clip_224.openai"
    assert one["weights_here"] == (one["file"] is not None)
    (embedded,) = json.loads(run_command(capsys, "backbones", "evl_clip_tiny", "--json")[1])
    assert embedded["weights_here"]
    assert (embedded["source"], embedded["file"]) == ("evl", None)


def test_an_architecture_that_cannot_work_says_why(capsys):
    for word in ("swin", "resnet50"):
        code, _, err = run_command(capsys, "backbones", word)
        assert code == 1
        assert f"no backbone that works here has '{word}' in its name or family" in err
        assert "cannot be a backbone; it is" in err
    assert "cannot be" not in run_command(capsys, "backbones", "no such thing")[2]
