"""Checkpoints of the original release (docs/method.md section 6), in and out."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone, create_backbone, parse_backbone
from evl.backbones.weights.files import load_torch_file
from evl.backbones.weights.openai_clip import HEAD_WIDTH
from evl.config import BackboneConfig, ClipConfig, DataConfig, EvaluationConfig, ModelConfig, RunConfig
from evl.errors import CheckpointError, EVLError, one_line
from evl.models import ClassifierHead, EVLDecoder
from evl.models.card import ModelCard
from evl.models.decoder import own_key_to_release
from evl.runtime.files import write_file
from evl.saving.classifier import VideoClassifier
from evl.video.transforms import preprocessing_of


def load_release(
    checkpoint: str | Path,
    backbone: str | Path | BackboneConfig | FrozenBackbone,
    *,
    class_names: Sequence[str] | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
) -> VideoClassifier:
    """A released checkpoint on its CLIP archive, in evaluation mode; all sizes are read from the tensors.

    ``backbone``: OpenAI's archive, a name or config, or a backbone tapped at as many blocks as the checkpoint has
    decoder layers. ``class_names``: by default the numbers of the classes, as in the release's lists. Unless a
    finished backbone is given, the model can be saved, evaluated and asked like any other; its clips and views are
    then those docs/method.md section 7 tells for its number of frames (stride 16, or 8 for 32 frames; 3x1 views, or 1x3
    above 8 frames). ``num_frames`` is only needed where the checkpoint has no temporal positions to count.

    Raises CheckpointError or BackboneError where files are not what they should be, or do not fit each other.
    """
    for name, value in (("num_frames", num_frames), ("stride", stride)):
        if value is not None and value < 1:
            raise CheckpointError(f"{name} {value}: expected at least 1")
    try:
        return _load(checkpoint, backbone, class_names, num_frames, stride)
    except EVLError:
        raise
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:  # tensors of odd shapes
        raise CheckpointError(f"{checkpoint}: its tensors do not fit each other ({one_line(error)})") from error


def _load(
    checkpoint: str | Path,
    backbone: str | Path | BackboneConfig | FrozenBackbone,
    class_names: Sequence[str] | None,
    num_frames: int | None,
    stride: int | None,
) -> VideoClassifier:
    state = _model_state(checkpoint)
    decoder_state = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    layers = [int(m[1]) for k in decoder_state if (m := re.match(r"decoder_layers\.(\d+)\.", k))]
    missing = [*(key for key in _HEAD_KEYS if key not in state), *([] if layers else ["decoder.decoder_layers"])]
    unexpected = [key for key in state if not key.startswith("decoder.") and key not in _HEAD_KEYS]
    if missing or unexpected:
        what = [f"no {key}" for key in missing[:3]] + [f"unexpected {key}" for key in unexpected[:3]]
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint of a frozen backbone ({', '.join(what)})")
    num_layers, config = max(layers) + 1, None
    if not isinstance(backbone, FrozenBackbone):
        config = backbone if isinstance(backbone, BackboneConfig) else parse_backbone(str(backbone))
        backbone = create_backbone(config, num_layers, trust_origin=True)  # the release knew no others
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
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CheckpointError(f"the class name {twice!r} was given twice")
    positions = decoder_state.get("temporal_pos_embed.0")
    qkv_width = len(decoder_state.get("decoder_layers.0.attn.q_proj.weight", ()))
    if qkv_width % HEAD_WIDTH:
        raise CheckpointError(
            f"{checkpoint} has an attention of width {qkv_width}, which is no multiple of {HEAD_WIDTH}, the width of "
            "the release's heads"
        )
    if positions is not None and num_frames not in (None, len(positions)):
        raise CheckpointError(f"{checkpoint} is for {len(positions)} frames, not {num_frames}; load it, then change it")
    num_frames = len(positions) if positions is not None else num_frames
    try:
        decoder = EVLDecoder.from_release(
            decoder_state,
            num_heads=qkv_width // HEAD_WIDTH or 1,  # 0: from_release tells what is missing
            num_frames=num_frames,
            grid=backbone.spec.grid,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    head = ClassifierHead(width, num_classes)
    try:
        head.load_state_dict({ours: state[key] for key, ours in _HEAD_KEYS.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint}: the classifier's tensors do not fit each other: {error}") from None
    model = VideoClassifier(backbone, decoder, head, names).eval()
    if config is not None and num_frames is not None:
        model.card = _card(model, config, num_frames, stride, qkv_width)
    return model


_HEAD_KEYS = {  # release's name, ours
    "proj.0.weight": "norm.weight",
    "proj.0.bias": "norm.bias",
    "proj.2.weight": "linear.weight",
    "proj.2.bias": "linear.bias",
}


def _card(
    model: VideoClassifier, backbone: BackboneConfig, num_frames: int, stride: int | None, qkv_width: int
) -> ModelCard:
    temporal, mlp = model.decoder.layers[0].temporal, model.decoder.layers[0].mlp
    config = RunConfig(
        backbone=backbone,
        model=ModelConfig(
            "evl",
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
            num_frames=num_frames,
            stride=stride or (8 if num_frames >= 32 else 16),
            interpolation="bilinear",
            antialias=False,
        ),
        data=DataConfig(pixel_aspect=False),
        evaluation=EvaluationConfig(3, 1) if num_frames <= 8 else EvaluationConfig(1, 3),
    )
    return ModelCard(
        config=config,
        backbone_hash=model.backbone.weights_hash,
        preprocessing=preprocessing_of(config, model.backbone.preprocessing),
        class_names=model.class_names,
        origin=model.backbone.origin,
        data="as the authors released it",
    )


def _model_state(checkpoint: str | Path) -> Mapping[str, Tensor]:
    content = load_torch_file(checkpoint)
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{checkpoint}: not a released EVL checkpoint (no 'model' in it)")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def release_state(model: VideoClassifier) -> dict[str, Tensor]:
    """The trained tensors by the release's names, in its order, as it would load them.

    Raises CheckpointError for a model that the release has no form for.
    """
    decoder = model.decoder
    reasons = []
    if not isinstance(decoder, EVLDecoder):
        reasons.append(f"its decoder is a {type(decoder).__name__}")
    else:
        attention = decoder.layers[0].attention
        head_width = attention.q_proj.out_features // attention.num_heads
        if len(decoder.query_token) != 1:
            reasons.append(f"it has {len(decoder.query_token)} query tokens")
        if head_width != HEAD_WIDTH:
            reasons.append(f"its heads are {head_width} wide, not {HEAD_WIDTH}")
    if not isinstance(model.head, ClassifierHead) or model.head.linear.bias is None:
        reasons.append(f"its head is a {type(model.head).__name__}, or has no bias")
    taps, spec = model.backbone.taps, model.backbone.spec
    if taps != tuple(range(spec.depth - len(taps) + 1, spec.depth + 1)):
        reasons.append(f"it reads blocks {list(taps)}, not the last {len(taps)} of {spec.depth}")
    if spec.num_prefix_tokens != 1:
        reasons.append(f"its backbone has {spec.num_prefix_tokens} prefix tokens, not one class token")
    if others := [name for name in model.trainable_state() if not name.startswith(("decoder.", "head."))]:
        reasons.append(f"it has more than a decoder and a classifier ({others[0]})")
    if reasons:
        raise CheckpointError(f"the original release has no form for this model: {'; '.join(reasons)}")
    state = {f"decoder.{own_key_to_release(key)}": value for key, value in decoder.state_dict().items()}
    state["decoder.cls_token"] = state["decoder.cls_token"][0]
    state = {key: state[key] for key in sorted(state, key=_place)}
    state |= {theirs: model.head.get_parameter(ours) for theirs, ours in _HEAD_KEYS.items()}
    return {key: value.detach().cpu().float().contiguous() for key, value in state.items()}


def _place(key: str) -> tuple:
    """Where the release has a tensor of its decoder: by group, layer, and part of a layer."""
    groups = ("cls_token", "decoder_layers", "temporal_conv", "temporal_pos_embed", "cross_attention")
    _, group, *rest = key.split(".")
    return groups.index(group), int(rest[0]) if rest else 0, rest[1] if group == "decoder_layers" else ""


def save_release(model: VideoClassifier, path: str | Path) -> None:
    """Writes a checkpoint of the release's form: ``model``, and a training that has not begun.

    Raises CheckpointError for a model it has no form for, SaveError if the disk refuses.
    """
    state = release_state(model)
    parameters = [torch.nn.Parameter(torch.empty(0)) for _ in state]
    optimizer = torch.optim.AdamW(parameters, lr=4e-4, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50_000)
    content = {
        "model": {f"module.{key}": value for key, value in state.items()},
        "optimizer": optimizer.state_dict(),
        "lr_sched": schedule.state_dict(),
        "loss_scaler": {},
        "next_step": 0,
    }
    archive = io.BytesIO()  # torch's own writer does not tell a full disk as one
    torch.save(content, archive)
    write_file(path, archive.getbuffer())


def kinetics400_class_names() -> tuple[str, ...]:
    """The 400 classes in the order of the released checkpoints, which is that of torchvision's video weights."""
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])
