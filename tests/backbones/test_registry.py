"""Names, refusals, and files that must not run code."""

import pickle
import zipfile

import pytest
import torch

from evl.backbones import create_backbone
from evl.backbones.weights.files import read_weights
from evl.config import BackboneConfig
from evl.errors import BackboneError, EVLError
from tests.helpers import GOLDEN


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit_bas_patch16_224", "did you mean .*vit_base_patch16_224"),
        ("evl_clip_tinny", "did you mean evl_clip_tiny"),
        ("vit_base_patch16_clip_quickgelu_224.openay", "did you mean openai"),
        ("vit_base_patch16_clip_224.openai", "QuickGELU.*Use vit_base_patch16_clip_quickgelu_224.openai"),
        ("vit_base_patch16_clip_224.dfn2b", "QuickGELU.*and use vit_base_patch16_clip_quickgelu_224 with"),
        ("openai_clip", "needs its archive"),
    ],
)
def test_refusals_say_what_to_do(name, sentence):
    with pytest.raises(BackboneError, match=sentence):
        create_backbone(name, 4)


def test_too_many_layers():
    with pytest.raises(BackboneError, match="has 5 blocks, but the last 6 were asked for"):
        create_backbone("evl_clip_tiny", 6)


def test_openai_archive_under_a_gelu_name_is_refused():
    config = BackboneConfig("vit_base_patch16_clip_224", weights=str(GOLDEN / "openai_clip_tiny.pt"))
    with pytest.raises(BackboneError, match="trained with QuickGELU"):
        create_backbone(config, 4)


def test_torchscript_tensors_equal_those_torch_reads():
    expected = torch.jit.load(GOLDEN / "openai_clip_tiny.pt", map_location="cpu").state_dict()
    got = read_weights(GOLDEN / "openai_clip_tiny.pt")[0]
    assert set(expected) <= set(got)
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
        assert tensor.dtype == got[name].dtype


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_weights_does_not_run(tmp_path, capsys):
    plain = tmp_path / "evil.pth"
    torch.save({"model": Evil()}, plain)
    script = tmp_path / "evil.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/code/__torch__.py", "")
    for path, sentence in ((plain, "holds code"), (script, "refused: the archive refers to print")):
        with pytest.raises(EVLError, match=sentence):
            read_weights(path)
    assert "code ran" not in capsys.readouterr().out


def test_damaged_files_are_errors(tmp_path):
    whole = (GOLDEN / "openai_clip_tiny.pt").read_bytes()
    for name, content in {
        "empty.pt": b"",
        "text.pt": b"hello",
        "cut.pt": whole[: len(whole) // 2],
        "cut.safetensors": (GOLDEN / "model_tiny.safetensors").read_bytes()[:500],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EVLError, match=name):
            read_weights(tmp_path / name)
    with pytest.raises(BackboneError, match="no such weights file"):
        read_weights(tmp_path / "missing.pt")


def openai_state():
    return {name: tensor for name, tensor in read_weights(GOLDEN / "openai_clip_tiny.pt")[0].items()}


def test_who_made_the_weights_decides_the_activation(tmp_path):
    """open_clip's files look like OpenAI's; only TorchScript, or the archive's three numbers, tell them apart."""
    state = openai_state()
    torch.save(state, tmp_path / "open_clip.pt")
    with pytest.raises(BackboneError, match="it may not be OpenAI's"):
        create_backbone(BackboneConfig("openai_clip", weights=str(tmp_path / "open_clip.pt")), 2)
    torch.save({**state, "input_resolution": torch.tensor(32)}, tmp_path / "openai.pt")
    backbone = create_backbone(BackboneConfig("openai_clip", weights=str(tmp_path / "openai.pt")), 2)
    assert "QuickGELU" in type(backbone.vit.blocks[0].mlp.act).__name__
    with pytest.raises(BackboneError, match="trained with QuickGELU"):
        create_backbone(BackboneConfig("vit_base_patch16_clip_224.laion2b", weights=str(tmp_path / "openai.pt")), 2)


def test_other_patches_are_not_resampled(tmp_path):
    path = str(GOLDEN / "openai_clip_tiny.pt")
    with pytest.raises(BackboneError, match=r"patches of 8×8 pixels, but .* takes 16×16"):
        create_backbone(BackboneConfig("vit_base_patch16_clip_quickgelu_224", weights=path), 2)


def test_given_weights_are_used_whatever_pretrained_says(tmp_path):
    import timm

    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "w.pth")
    backbone = create_backbone(BackboneConfig("test_vit", weights=str(tmp_path / "w.pth"), pretrained=False), 2)
    assert torch.equal(backbone.vit.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    state["blocks.1.norm1.weight"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(BackboneError, match="not all finite"):
        create_backbone(BackboneConfig("test_vit", weights=str(tmp_path / "nan.pth")), 2)


def test_archives_cannot_ask_for_more_memory_than_they_hold(tmp_path):
    with zipfile.ZipFile(GOLDEN / "openai_clip_tiny.pt") as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(BackboneError, match="refused: its tensor data have more bytes than the file"):
        read_weights(tmp_path / "deflated.pt")[0]


@pytest.mark.parametrize("width", [32, 96])
def test_odd_openai_files_are_told(tmp_path, width):
    state = openai_state()
    state["visual.conv1.weight"] = state["visual.conv1.weight"][:width]
    torch.save({**state, "input_resolution": torch.tensor(32)}, tmp_path / "odd.pt")
    with pytest.raises(BackboneError, match="not a multiple of 64"):
        create_backbone(BackboneConfig("openai_clip", weights=str(tmp_path / "odd.pt")), 2)


def test_an_untagged_name_takes_timms_default_weights_into_account():
    with pytest.raises(BackboneError, match="trained with QuickGELU"):
        create_backbone("vit_huge_patch14_clip_378", 4)


def test_the_hash_does_not_depend_on_the_image_size(tmp_path):
    import timm

    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    plain, larger, oblong = (
        create_backbone(BackboneConfig("test_vit", weights=str(tmp_path / "w.pth"), image_size=size), 2)
        for size in (None, 192, (96, 160))
    )
    assert plain.weights_hash == larger.weights_hash == oblong.weights_hash
    assert (larger.spec.grid, oblong.spec.grid) == ((12, 12), (6, 10))
    assert oblong(torch.randn(1, 2, 3, 96, 160))[0].tokens.shape[2] == oblong.spec.num_tokens
    with pytest.raises(BackboneError, match="cannot take images of 100×100: patches are 16×16"):
        create_backbone(BackboneConfig("test_vit", weights=str(tmp_path / "w.pth"), image_size=100), 2)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_random_weights_do_not_switch_scaled_blocks_off(name):
    """Layer scales are neither biases nor called weights: at 0, every block would pass on what it got."""
    import timm

    from evl.backbones.timm_vit import random_weights_

    vit = timm.create_model(name, img_size=56 if "14" in name else 64, embed_dim=32, depth=2, num_heads=2).eval()
    random_weights_(vit, seed=0)
    seen = []
    for block in vit.blocks:
        block.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with torch.no_grad():
        vit.forward_features(torch.randn(1, 3, *vit.patch_embed.img_size))
    for given, output in seen:
        assert (output - given).abs().max() > 0.1
