"""Weights of every layout into timm's architectures: the same token maps as the libraries that made them."""

import json
import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tests.backbones.tiny  # noqa: F401  (registers the architectures)
from evl.backbones import create_backbone
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.helpers import GOLDEN, assert_close

GOLDENS = sorted((GOLDEN / "layouts").glob("*.safetensors"))


def open_golden(path):
    """(checkpoint, frames, tokens a block, metadata)."""
    with safe_open(path, "pt") as file:
        content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state = {key.removeprefix("file."): value for key, value in content.items() if key.startswith("file.")}
    return state, content["frames"], [content["tokens.0"], content["tokens.1"]], metadata


def written(folder, golden, name="model.safetensors"):
    """The checkpoint of a golden file as its library leaves it in a folder, with its config."""
    state, frames, tokens, metadata = open_golden(golden)
    folder.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save({"epoch": 3, "state_dict": state}, folder / name)
    if (config := json.loads(metadata["config"])) != {}:
        (folder / ("open_clip_config.json" if "model_cfg" in config else "config.json")).write_text(json.dumps(config))
    return folder / name, frames, tokens, metadata


def load(name, path, taps=2, **more):
    return create_backbone(BackboneConfig(name, weights=str(path), **more), taps)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_tokens_are_those_of_the_library(golden, tmp_path):
    path, frames, tokens, metadata = written(tmp_path / "one", golden)
    backbone = load(metadata["architecture"], path)
    got = backbone(frames[:, None])
    for ours, theirs in zip(got, tokens, strict=True):
        assert_close(ours.tokens[:, 0], theirs)
    assert backbone.origin.layout == metadata["layout"]
    assert (backbone.origin.kind, backbone.origin.source) == ("file", "model.safetensors")
    pickled, *_ = written(tmp_path / "two", golden, "pytorch_model.bin")
    again = load(metadata["architecture"], pickled)
    assert again.weights_hash == backbone.weights_hash


def test_there_is_a_golden_file_of_each_layout():
    assert {path.stem.split("_")[0] for path in GOLDENS} == {"hf", "open"}
    assert len(GOLDENS) == 16
