"""Checkpoints of the original release (METHOD.md section 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from evl.assembly.build import ModelCard
from evl.backbones import FrozenBackbone
from evl.backbones.openai_clip import HEAD_WIDTH, load_openai_clip
from evl.backbones.weights import load_torch_file
from evl.config import BackboneConfig, ClipConfig, EvaluationConfig, ModelConfig
from evl.errors import CheckpointError
from evl.models import ClassifierHead, EVLDecoder, VideoClassifier


def load_release(
    checkpoint: str | Path, backbone: str | Path | FrozenBackbone, *, class_names: Sequence[str] | None = None
) -> VideoClassifier:
    """A released checkpoint on its CLIP archive, in evaluation mode; all sizes are read from the tensors.

    ``backbone``: OpenAI's archive, or a backbone tapped at as many blocks as the checkpoint has decoder layers.
    ``class_names``: by default the numbers of the classes, as in the release's lists. Given an archive, the model can
    be saved, evaluated and asked like any other; its clips and views are then those METHOD.md section 7 tells for its
    number of frames (stride 16, or 8 for 32 frames; 3x1 views, or 1x3 above 8 frames).

    Raises CheckpointError or BackboneError where files are not what they should be, or do not fit each other.
    """
    state = _model_state(checkpoint)
    decoder_state = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    layers = [int(m[1]) for k in decoder_state if (m := re.match(r"decoder_layers\.(\d+)\.", k))]
    head_keys = {f"proj.{i}.{part}": f"{ours}.{part}" for i, ours in ((0, "norm"), (2, "linear")) for part in _PARTS}
    missing = [*(key for key in head_keys if key not in state), *([] if layers else ["decoder.decoder_layers"])]
    unexpected = [key for key in state if not key.startswith("decoder.") and key not in head_keys]
    if missing or unexpected:
        what = [f"no {key}" for key in missing[:3]] + [f"unexpected {key}" for key in unexpected[:3]]
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint of a frozen backbone ({', '.join(what)})")
    num_layers, path = max(layers) + 1, None
    if not isinstance(backbone, FrozenBackbone):
        path = str(backbone)
        backbone = load_openai_clip(path, num_layers, trust_origin=True)  # the release knew no others
    if len(backbone.taps) != num_layers:
        raise CheckpointError(
            f"{checkpoint} has {num_layers} decoder layers, but {len(backbone.taps)} blocks are tapped"
        )
    num_classes, width = state["proj.2.weight"].shape
    if width != backbone.spec.width:
        raise CheckpointError(
            f"{checkpoint} is for a backbone of width {width}, but this one ({backbone.spec.name}) has "
            f"{backbone.spec.width}"
        )
    names = tuple(class_names) if class_names is not None else tuple(str(y) for y in range(num_classes))
    if len(names) != num_classes:
        raise CheckpointError(f"{checkpoint} has {num_classes} classes, but {len(names)} names were given")
    positions = decoder_state.get("temporal_pos_embed.0")
    qkv_width = len(decoder_state.get("decoder_layers.0.attn.q_proj.weight", ()))
    decoder = EVLDecoder.from_release(
        decoder_state,
        num_heads=qkv_width // HEAD_WIDTH or 1,
        num_frames=len(positions) if positions is not None else None,
        grid=backbone.spec.grid,
    )
    head = ClassifierHead(width, num_classes)
    try:
        head.load_state_dict({ours: state[key] for key, ours in head_keys.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint}: the classifier's tensors do not fit each other: {error}") from None
    model = VideoClassifier(backbone, decoder, head, names).eval()
    if path is not None and positions is not None:
        model.card = _card(model, path, len(positions), qkv_width)
    return model


_PARTS = ("weight", "bias")


def _card(model: VideoClassifier, weights: str, num_frames: int, qkv_width: int) -> ModelCard:
    temporal, mlp = model.decoder.layers[0].temporal, model.decoder.layers[0].mlp
    return ModelCard(
        backbone=BackboneConfig("openai_clip", weights=weights),
        backbone_hash=model.backbone.weights_hash,
        model=ModelConfig(
            taps=f"last {len(model.decoder.layers)}",
            num_heads=qkv_width // HEAD_WIDTH,
            qkv_width=qkv_width,
            mlp_ratio=mlp.fc1.out_features / mlp.fc1.in_features,
            temporal_conv=temporal.conv is not None,
            temporal_position=temporal.position is not None,
            cross_frame=temporal.cross_frame is not None,
            query_init="zero",
        ),
        clip=ClipConfig(
            num_frames=num_frames, stride=8 if num_frames >= 32 else 16, interpolation="bilinear", antialias=False
        ),
        evaluation=EvaluationConfig(3, 1) if num_frames <= 8 else EvaluationConfig(1, 3),
        preprocessing=replace(model.backbone.preprocessing, interpolation="bilinear", antialias=False),
        class_names=model.class_names,
    )


def _model_state(checkpoint: str | Path) -> Mapping[str, Tensor]:
    content = load_torch_file(checkpoint)
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint (no 'model' in it)")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
