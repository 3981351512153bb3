"""A config → a classifier: backbone, decoder and head of matching sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from evl.assembly.formats import FORMAT_VERSION
from evl.assembly.hub import VideoClassifier
from evl.backbones import FrozenBackbone, Taps, create_backbone
from evl.config import BackboneConfig, ClipConfig, EvaluationConfig, ModelConfig, RunConfig
from evl.errors import ConfigError
from evl.models import AttentiveProbe, ClassifierHead, EVLDecoder, MeanPool
from evl.types import BackboneSpec, Preprocessing, WeightsOrigin


@dataclass(frozen=True)
class ModelCard:
    """All that a saved model is besides its tensors; ``model.json``."""

    backbone: BackboneConfig
    backbone_hash: str
    model: ModelConfig
    clip: ClipConfig
    evaluation: EvaluationConfig
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    origin: WeightsOrigin | None = None  # of the backbone's weights; None where an older evl saved it
    scores: dict[str, int | float | str] | None = None  # with their protocol
    data: str | None = None  # what it was trained on, in words
    with_backbone: bool = False  # whether the encoder's weights are inside
    precision: str = "fp32"  # of training, and of judging on the same kind of device
    format_version: int = FORMAT_VERSION
    evl_version: str = ""

    def protocol(
        self, num_videos: int, num_clips: int | None = None, num_crops: int | None = None, precision: str | None = None
    ) -> str:
        """How a score was measured, on one line: no score is printed without it."""
        clip, pre = self.clip, self.preprocessing
        frames = f"{clip.num_frames}x{clip.stride}" if clip.sampling == "dense" else f"{clip.num_frames} segments"
        views = f"{num_clips or self.evaluation.num_clips}x{num_crops or self.evaluation.num_crops} views"
        height, width = pre.image_size
        size = f"{height}px" if height == width else f"{height}×{width}px"
        kind = f"{pre.interpolation}{', antialiased' if pre.antialias else ''}"
        name = self.backbone.name
        if self.backbone.weights is not None:
            name += f" ({Path(self.backbone.weights).name})"
        return f"{frames} frames, {views}, {size} ({kind}), {name}, {precision or self.precision}, {num_videos} videos"


def build_classifier(
    config: RunConfig, class_names: Sequence[str], *, backbone: FrozenBackbone | None = None
) -> VideoClassifier:
    """An untrained classifier on its frozen backbone, on the CPU, with ``card`` filled in.

    ``backbone``: the one that ``config`` names, if it is there already. Raises BackboneError or ConfigError
    where parts do not fit.
    """
    if len(class_names) < 2:
        raise ConfigError(f"{len(class_names)} class: a classifier needs at least two")
    backbone = backbone or create_backbone(config.backbone, taps_of(config.model))
    decoder = build_decoder(config.model, backbone.spec, len(backbone.taps), config.clip.num_frames)
    head = ClassifierHead(backbone.spec.width, len(class_names), config.model.head_dropout)
    model = VideoClassifier(backbone, decoder, head, class_names)
    preprocessing = replace(backbone.preprocessing, antialias=config.clip.antialias)
    if config.clip.interpolation != "auto":
        preprocessing = replace(preprocessing, interpolation=config.clip.interpolation)
    model.card = ModelCard(
        backbone=config.backbone,
        backbone_hash=backbone.weights_hash,
        model=config.model,
        clip=config.clip,
        evaluation=config.evaluation,
        preprocessing=preprocessing,
        class_names=tuple(class_names),
        origin=backbone.origin,
    )
    return model


def taps_of(config: ModelConfig) -> Taps:
    """The blocks a decoder reads: all that are tapped, or the deepest of them for a probe."""
    if config.decoder == "evl":
        return config.taps
    return 1 if isinstance(config.taps, str) else config.taps[-1:]


def attention_sizes(config: ModelConfig, spec: BackboneSpec) -> tuple[int, int]:
    """(width, heads) of the decoder's attention: heads 64 wide, or as many as the backbone's own."""
    qkv_width = config.qkv_width or spec.width
    return qkv_width, config.num_heads or (qkv_width // 64 if qkv_width % 64 == 0 else spec.num_heads)


def build_decoder(config: ModelConfig, spec: BackboneSpec, num_taps: int, num_frames: int) -> nn.Module:
    """The trainable reader of a backbone's features."""
    if config.decoder == "linear":
        return MeanPool(spec.width, spec.num_prefix_tokens)
    qkv_width, num_heads = attention_sizes(config, spec)
    if qkv_width % num_heads:
        raise ConfigError(f"model.num_heads {num_heads} does not divide the attention's width {qkv_width}")
    if config.decoder == "attentive":
        return AttentiveProbe(
            spec.width,
            num_blocks=config.probe_blocks or 4,
            num_heads=num_heads,
            num_frames=num_frames,
            grid=spec.grid,
            positions=config.probe_positions is not False,
            mlp_ratio=config.mlp_ratio,
            mlp_dropout=config.mlp_dropout,
        )
    return EVLDecoder(
        spec.width,
        num_taps,
        num_frames=num_frames,
        grid=spec.grid,
        num_heads=num_heads,
        qkv_width=qkv_width,
        mlp_ratio=config.mlp_ratio,
        mlp_dropout=config.mlp_dropout,
        temporal_conv=config.temporal_conv,
        temporal_position=config.temporal_position,
        cross_frame=config.cross_frame,
        num_queries=config.num_queries,
        query_init=config.query_init,
    )
