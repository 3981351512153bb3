"""Checkpoints of the original release (METHOD.md section 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.openai_clip import HEAD_WIDTH
from evl.backbones.weights import load_torch_file
from evl.config import BackboneConfig
from evl.errors import CheckpointError
from evl.models import ClassifierHead, EVLDecoder, VideoClassifier


def load_release(checkpoint: str | Path, backbone: str | Path | FrozenBackbone) -> VideoClassifier:
    """A released checkpoint on its CLIP archive, in evaluation mode; all sizes are read from the tensors.

    ``backbone``: OpenAI's archive, or a backbone tapped at as many blocks as the checkpoint has decoder layers.
    Raises CheckpointError or BackboneError where files are not what they should be, or do not fit each other.
    """
    state = _model_state(checkpoint)
    decoder_state = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    layers = [int(m[1]) for k in decoder_state if (m := re.match(r"decoder_layers\.(\d+)\.", k))]
    if not layers or "proj.2.weight" not in state:
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint (no decoder layers, or no classifier)")
    num_taps = max(layers) + 1
    if not isinstance(backbone, FrozenBackbone):
        backbone = create_backbone(BackboneConfig("openai_clip", weights=str(backbone)), num_taps)
    width = state["proj.2.weight"].shape[1]
    if width != backbone.spec.width:
        raise CheckpointError(
            f"{checkpoint} is for a backbone of width {width}, but this one ({backbone.spec.name}) has "
            f"{backbone.spec.width}"
        )
    positions = decoder_state.get("temporal_pos_embed.0")
    decoder = EVLDecoder.from_release(
        decoder_state,
        num_heads=len(decoder_state["decoder_layers.0.attn.q_proj.weight"]) // HEAD_WIDTH,
        num_frames=len(positions) if positions is not None else None,
        grid=backbone.spec.grid,
    )
    head = ClassifierHead(width, len(state["proj.2.weight"]))
    head.load_state_dict(
        {
            f"{ours}.{part}": state[f"proj.{i}.{part}"]
            for i, ours in ((0, "norm"), (2, "linear"))
            for part in ("weight", "bias")
        }
    )
    return VideoClassifier(backbone, decoder, head).eval()


def _model_state(checkpoint: str | Path) -> Mapping[str, Tensor]:
    content = load_torch_file(checkpoint)
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint (no 'model' in it)")
    return {key.removeprefix("module."): value for key, value in state.items()}
