"""Golden files opened: for tests, and for the checks of a new card in scripts/gpu."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import evl
import tests.backbones.tiny  # noqa: F401  (registers the architectures of the layouts)
from evl.types import LayerFeatures
from tests.helpers import GOLDEN

DECODERS = sorted(path.name for path in GOLDEN.glob("decoder_*.safetensors"))
LAYOUTS = sorted((GOLDEN / "layouts").glob("*.safetensors"))


def load_decoder(name: str) -> tuple[evl.EVLDecoder, list[LayerFeatures], dict[str, Tensor], dict]:
    """(decoder, features, all tensors of the file, its config) of one of ``DECODERS``."""
    with safe_open(GOLDEN / name, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key.removeprefix("param."): value for key, value in tensors.items() if key.startswith("param.")}
    decoder = evl.EVLDecoder.from_release(
        state, num_heads=config["num_heads"], num_frames=config["num_frames"], grid=tuple(config["spatial_size"])
    )
    features = [
        LayerFeatures(*(tensors[f"input.{i}.{part}"] for part in ("out", "q", "k")))
        for i in range(config["num_layers"])
    ]
    return decoder, features, tensors, config


def open_layout(path: Path) -> tuple[dict[str, Tensor], Tensor, list[Tensor], dict[str, str]]:
    """(checkpoint, frames, tokens a block, metadata) of one of ``LAYOUTS``."""
    with safe_open(path, "pt") as file:
        content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state = {key.removeprefix("file."): value for key, value in content.items() if key.startswith("file.")}
    return state, content["frames"], [content["tokens.0"], content["tokens.1"]], metadata


def write_layout(folder: Path, golden: Path, name: str = "model.safetensors"):
    """The checkpoint of a golden file as its library leaves it in a folder, with its config: (its path, frames, tokens
    a block, metadata)."""
    state, frames, tokens, metadata = open_layout(golden)
    folder.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save({"epoch": 3, "state_dict": state}, folder / name)
    if (config := json.loads(metadata["config"])) != {}:
        (folder / ("open_clip_config.json" if "model_cfg" in config else "config.json")).write_text(json.dumps(config))
    return folder / name, frames, tokens, metadata
