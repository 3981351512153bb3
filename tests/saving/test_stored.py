"""What lies in a model's folder is read and not believed: versions, cards, tensors, and what is inside."""

import json
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import evl
from evl.errors import CheckpointError
from evl.saving import save_model
from evl.saving.folder import FORMAT_VERSION
from tests.saving.test_saved import clips_for, make

pytestmark = pytest.mark.usefixtures("one_thread")


def test_changed_backbone_weights_inside_are_refused(tmp_path):
    save_model(make(), tmp_path, with_backbone=True)
    state = load_file(tmp_path / "model.safetensors")
    state["backbone.vit.norm.bias"] = state["backbone.vit.norm.bias"].float() + 0.5
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="other backbone weights"):
        evl.load(tmp_path)
    del state["backbone.vit.norm.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"do not fit evl_clip_tiny.*norm\.bias"):
        evl.load(tmp_path)


def of_config(card, section, fields):
    return card | {"config": card["config"] | {section: card["config"][section] | fields}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda card: card | {"format_version": FORMAT_VERSION + 1}, f"reads up to {FORMAT_VERSION}; upgrade evl"),
        (lambda card: card | {"format_version": 2}, f"format_version is 2, expected {FORMAT_VERSION}"),
        (lambda card: card | {"format_version": 0}, "format_version is 0"),
        (lambda card: card | {"format_version": "3"}, "format_version is '3'"),
        (lambda card: {k: v for k, v in card.items() if k != "format_version"}, "format_version is None"),
        (lambda card: [card], "found list"),
        (lambda card: of_config(card, "model", {"taps": "first 2"}), "model.taps"),
        (lambda card: of_config(card, "model", {"new": 1}), "model.new"),
        (lambda card: of_config(card, "data", {"group_by": "(" * 10_000}), "group_by must be"),
        (lambda card: of_config(card, "data", {"group_by": "(a{99999999999})"}), "group_by must be"),
        (lambda card: of_config(card, "model", {"zero_shot_start": True}), "no class vectors (zero_shot.text)"),
        (lambda card: of_config(card, "model", {"decoder": "zero_shot"}), "no class vectors (decoder.text)"),
        (lambda card: card | {"class_names": ["a", "a", "b"]}, "a class name twice"),
        (lambda card: card | {"class_names": ["a", "b"]}, "does not fit this model"),
        (lambda card: card | {"backbone_hash": "0"}, "other backbone weights"),
    ],
)
def test_cards_that_are_none(tmp_path, change, sentence):
    save_model(make(), tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(change(card)))
    with pytest.raises(CheckpointError) as caught:
        evl.load(tmp_path)
    assert sentence in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match="no saved model here"):
        evl.load(tmp_path)
    save_model(make(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for content in (whole[:1000], b"", b"\x80\x04cos\nsystem\n", whole[:8] + b"x" * 100):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="missing or damaged"):
            evl.load(tmp_path)
    (tmp_path / "model.json").write_bytes(b"[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged"):
        evl.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("model", "mlp_ratio", 1e12),
        ("model", "mlp_ratio", 1e300),
        ("model", "qkv_width", 2**50),
        ("model", "num_queries", 2**60),
        ("clip", "num_frames", 2**40),
        ("backbone", "image_size", 2**40),
        ("preprocessing", "image_size", [2**30, 2**30]),
    ],
)
def test_claimed_sizes_are_not_believed(tmp_path, section, field, value):
    save_model(make(), tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    (card if section == "preprocessing" else card["config"])[section][field] = value
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError):
        evl.load(tmp_path)


@pytest.mark.parametrize(
    "backbone", [{}, {"image_size": 32}, {"name": "flexivit_small", "pretrained": False, "patch_size": 48}], ids=str
)
def test_what_is_inside_is_checked_whatever_its_size(tmp_path, backbone, monkeypatch):
    if "name" in backbone:
        monkeypatch.setattr("timm.create_model", partial(timm.create_model, embed_dim=32, num_heads=2))
    model = make(backbone=backbone, model={"taps": "last 1"})
    model.save_pretrained(tmp_path, with_backbone=True)
    assert torch.equal(evl.load(tmp_path)(clips_for(model)), model(clips_for(model)))
    state = load_file(tmp_path / "model.safetensors")
    name = "backbone.vit.blocks.1.attn.qkv.weight"
    state[name] = state[name].float() + 1e-3
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"other backbone weights.*what is inside has"):
        evl.load(tmp_path)


def test_card_and_tensors_must_agree(tmp_path):
    """Nothing is resized that nobody asked for, and nothing left out."""
    save_model(make(), tmp_path)
    whole = load_file(tmp_path / "model.safetensors")

    def refused(sentence, **changes):
        save_file({**whole, **changes}, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=sentence):
            evl.load(tmp_path)

    table = "decoder.layers.0.temporal.position"
    refused(r"has the shape \(8, 128\), not \(3, 128\)", **{table: torch.zeros(8, 128)})
    refused(r"has the shape \(0, 128\)", **{table: torch.zeros(0, 128)})
    refused("which has no foo", foo=torch.zeros(1))
    refused("which has no zero_shot.text", **{"zero_shot.text": torch.zeros(3, 8)})
    refused("numbers of torch.int8", **{table: torch.zeros(3, 128, dtype=torch.int8)})
    refused("numbers that are not finite", **{table: torch.full((3, 128), torch.nan)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace('"std": [', '"std": [0.0, 0.25, 0.25], "was": ['), "std"),
        (lambda text: text.replace('"std": [', '"std": [NaN, 0.25, 0.25], "was": ['), "NaN is not a number"),
        (lambda text: text.replace('"mean": [', '"mean": [1e999, 0.5, 0.5], "was": ['), "mean"),
        (lambda text: text.replace('"up"', '"\\ud800"'), "a class name that is no text"),
        (lambda text: text.replace('"precision": "fp32"', '"precision": "fp64"'), "precision"),
        (lambda text: text.replace('"dtype": "float32"', '"dtype": "int8"'), "dtype"),
        (lambda text: text.replace('"num_frames": 3', '"num_frames": 3, "num_frames": 4'), "a name appears twice"),
    ],
)
def test_cards_that_lie(tmp_path, change, sentence):
    save_model(make(), tmp_path)
    text = (tmp_path / "model.json").read_text()
    assert change(text) != text
    (tmp_path / "model.json").write_text(change(text))
    with pytest.raises(CheckpointError, match=sentence):
        evl.load(tmp_path)
