"""What a model is besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evl.config import BackboneConfig, ClipConfig, EvaluationConfig, ModelConfig
from evl.types import Preprocessing, WeightsOrigin

FORMAT_VERSION = 2  # of ``model.json``: rises when an older evl would misread it


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
    origin: WeightsOrigin | None = None  # of the backbone's weights; None: not known
    scores: dict[str, int | float | str] | None = None  # with their protocol
    scored_hash: str | None = None  # of the trained weights when they were scored
    data: str | None = None  # what it was trained on, in words
    used_otherwise: tuple[str, ...] = ()  # than it was trained, in words: more frames, other pixels
    with_backbone: bool = False  # whether the encoder's weights are inside
    inside_hash: str | None = None  # of those; ``backbone_hash`` is of the weights before they were fitted to a size
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"  # of the weights, and of what loading gives
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of training, and of judging on the same kind of device
    format_version: int = FORMAT_VERSION
    evl_version: str = ""

    def protocol(
        self, num_videos: int, num_clips: int | None = None, num_crops: int | None = None, precision: str | None = None
    ) -> str:
        """How a score was measured, on one line: no score is printed without it."""
        clip, pre = self.clip, self.preprocessing
        frames = f"{clip.num_frames}x{clip.stride} frames"
        if clip.sampling == "segment":
            frames = f"{clip.num_frames} segment frames"
        elif clip.frames_per_second is not None:
            frames = f"{clip.num_frames} frames, {clip.spacing}"
        views = f"{num_clips or self.evaluation.num_clips}x{num_crops or self.evaluation.num_crops} views"
        height, width = pre.image_size
        size = f"{height}px" if height == width else f"{height}×{width}px"
        kind = f"{pre.interpolation}{', antialiased' if pre.antialias else ''}"
        name = self.backbone.name
        if self.backbone.weights is not None:
            name += f" ({Path(self.backbone.weights).name})"
        if self.model.decoder == "zero_shot":
            name += ", zero-shot"
        return f"{frames}, {views}, {size} ({kind}), {name}, {precision or self.precision}, {num_videos} videos"
