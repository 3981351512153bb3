"""What a model is besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from evl.config import RunConfig
from evl.types import Preprocessing, WeightsOrigin

FORMAT_VERSION = 3  # of ``model.json``: rises when an older evl would misread it


@dataclass(frozen=True)
class ModelCard:
    """All that a saved model is besides its tensors; ``model.json``.

    ``config`` is that of its training, with later changes of encoder file, clips and image size.
    """

    config: RunConfig
    backbone_hash: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    origin: WeightsOrigin | None = None  # of the backbone's weights; None: not known
    scores: dict[str, JsonValue] | None = None  # ``Evaluation.to_dict``: numbers, their titles and protocol
    scored_hash: str | None = None  # of the trained weights when they were scored
    data: str | None = None  # what it was trained on, in words
    used_otherwise: tuple[str, ...] = ()  # than it was trained, in words: more frames, other pixels
    with_backbone: bool = False  # whether the encoder's weights are inside
    inside_hash: str | None = None  # of those; ``backbone_hash`` is of the weights before they were fitted to a size
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"  # of the weights, and of what loading gives
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of training, and of judging on the same kind of device
    # how segments are found in timelines: fields of ``evl.inference.segments.SegmentRules``; None: its usual ones
    segment_rules: dict[str, JsonValue] | None = None
    rules_chosen_on: str | None = None  # the validation videos that thresholds were chosen on, in words
    # of this file and the weights beside it, which have it too
    pair_id: str | None = field(default=None, compare=False)
    format_version: int = FORMAT_VERSION
    evl_version: str = ""

    def protocol(
        self, num_videos: int, num_clips: int | None = None, num_crops: int | None = None, precision: str | None = None
    ) -> str:
        """How a score was measured, on one line: no score is printed without it."""
        config, clip, pre = self.config, self.config.clip, self.preprocessing
        frames = f"{clip.num_frames}x{clip.stride} frames"
        if clip.sampling == "segment":
            frames = f"{clip.num_frames} segment frames"
        elif clip.frames_per_second is not None:
            frames = f"{clip.num_frames} frames, {clip.spacing}"
        views = f"{num_clips or config.evaluation.num_clips}x{num_crops or config.evaluation.num_crops} views"
        height, width = pre.image_size
        size = f"{height}px" if height == width else f"{height}×{width}px"
        kind = f"{pre.interpolation}{', antialiased' if pre.antialias else ''}"
        name = config.backbone.name
        if config.backbone.weights is not None:
            name += f" ({Path(config.backbone.weights).name})"
        if config.model.decoder == "zero_shot":
            name += ", zero-shot"
        return f"{frames}, {views}, {size} ({kind}), {name}, {precision or self.precision}, {num_videos} videos"
