"""Recipes: named functions that return a complete config; ``evl train --recipe k400_vitb16_8x16``.

Those for Kinetics-400 are the released ones (docs/method.md sections 7 and 8): AdamW, a cosine over 50,000 steps,
batches of 256, fp16, dropout 0.5 in two places, RandAugment, random resized crops, bilinear resizing without antialias,
and a query token that starts at zero. The release was meant to flip clips, but never did.

Those for Something-Something v2 were reported but never released. docs/method.md section 7 infers segment sampling, no
flip, and a decoder layer for every block. Everything else is from the Kinetics recipe. The views (1x3) are our choice.
None of this was tested.

Those for the side network (docs/side.md) have what Side4Video reports for Something-Something v2: AdamW, lr 1e-3 (L/14:
1e-4), weight decay 0.15, a cosine over 30 epochs with 4 of warm-up, label smoothing 0.1, batches of 128 videos that are
drawn twice each, segment sampling, RandAugment, flips that exchange the labels of left/right pairs, no dropout, views
2x3. Our own choices are epochs of 168,913 videos and a cosine by step. For Kinetics-400 only the views (4x3) are
reported: its clips are those of EVL's recipe, with flips and 240,436 videos. None of this was trained here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from evl.config import (
    AugmentConfig,
    BackboneConfig,
    ClipConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    replace,
)
from evl.errors import ConfigError, nearest

B16 = "vit_base_patch16_clip_quickgelu_224.openai"
L14 = "vit_large_patch14_clip_quickgelu_224.openai"
L14_336 = "vit_large_patch14_clip_quickgelu_336.openai"


def released(backbone: str, num_frames: int, stride: int, *, num_clips: int, num_crops: int) -> RunConfig:
    """Returns the released recipe for a backbone, a clip, and the views of evaluation."""
    return RunConfig(
        backbone=BackboneConfig(backbone),
        model=ModelConfig("evl", taps="last 4", mlp_dropout=0.5, head_dropout=0.5, query_init="zero"),
        clip=ClipConfig(
            "dense", num_frames, stride, past_end="last_sampled_frame", interpolation="bilinear", antialias=False
        ),
        augment=AugmentConfig(rand_augment="rand-m7-n4-mstd0.5-inc1", crop_area=(0.08, 1.0), flip=0.0),
        data=DataConfig(pixel_aspect=False),
        training=TrainingConfig(
            steps=50_000,
            batch_size=256,
            lr=4e-4,
            weight_decay=0.05,
            warmup_steps=0,
            clip_grad_norm=None,
            precision="fp16",
            eval_every=5_000,
            save_every=1_000,
        ),
        evaluation=EvaluationConfig(num_clips=num_clips, num_crops=num_crops),
    )


def _ssv2(backbone: str, num_frames: int) -> RunConfig:
    kinetics = released(backbone, num_frames, 1, num_clips=1, num_crops=3)
    return replace(kinetics, model={"taps": "all"}, clip={"sampling": "segment"}, augment={"flip": 0.0})


def _side(
    backbone: str, clip: ClipConfig, flip: float | str, *, width: int, lr: float, num_clips: int, num_videos: int
) -> RunConfig:
    """Returns a recipe for the side network. In an epoch each video is drawn twice."""
    epoch = num_videos * 2 / 256  # in steps
    return RunConfig(
        backbone=BackboneConfig(backbone),
        model=ModelConfig(decoder="side", taps="all", side_width=width, side_norm="batch", head_dropout=0.0),
        clip=clip,
        augment=AugmentConfig(rand_augment="rand-m7-n4-mstd0.5-inc1", flip=flip),
        data=DataConfig(pixel_aspect=False),
        training=TrainingConfig(
            steps=round(30 * epoch),
            warmup_steps=round(4 * epoch),
            batch_size=256,
            repeated_augmentation=2,
            clip_grad_norm=None,
            lr=lr,
            weight_decay=0.15,
            label_smoothing=0.1,
            eval_every=5_000,
            save_every=1_000,
        ),
        evaluation=EvaluationConfig(num_clips=num_clips, num_crops=3),
    )


def _ssv2_side(backbone: str, num_frames: int, *, width: int, lr: float) -> RunConfig:
    options = dict(width=width, lr=lr, num_clips=2, num_videos=168_913)
    return _side(backbone, ClipConfig("segment", num_frames), "pairs", **options)


def _k400_side(backbone: str, num_frames: int) -> RunConfig:
    options = dict(width=320, lr=1e-3, num_clips=4, num_videos=240_436)
    return _side(backbone, ClipConfig("dense", num_frames, 16), 0.5, **options)


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "k400_vitb16_8x16": partial(released, B16, 8, 16, num_clips=3, num_crops=1),  # reported top-1: 82.8
    "k400_vitb16_16x16": partial(released, B16, 16, 16, num_clips=1, num_crops=3),  # 83.7
    "k400_vitb16_32x8": partial(released, B16, 32, 8, num_clips=1, num_crops=3),  # 84.3
    "k400_vitl14_8x16": partial(released, L14, 8, 16, num_clips=3, num_crops=1),  # 86.3
    "k400_vitl14_16x16": partial(released, L14, 16, 16, num_clips=1, num_crops=3),  # 86.9
    "k400_vitl14_32x8": partial(released, L14, 32, 8, num_clips=1, num_crops=3),  # 87.7
    "k400_vitl14_336_32x8": partial(released, L14_336, 32, 8, num_clips=1, num_crops=3),  # 87.7
    "ssv2_vitb16_8": partial(_ssv2, B16, 8),  # reported top-1: 61.0
    "ssv2_vitb16_16": partial(_ssv2, B16, 16),  # 61.7
    "ssv2_vitb16_32": partial(_ssv2, B16, 32),  # 62.4
    "ssv2_vitl14_8": partial(_ssv2, L14, 8),  # 65.1
    "ssv2_vitl14_32": partial(_ssv2, L14, 32),  # 66.7
    "ssv2_vitl14_336_32": partial(_ssv2, L14_336, 32),  # 68.0
    "ssv2_side_b16_8f": partial(_ssv2_side, B16, 8, width=320, lr=1e-3),  # 70.2
    "ssv2_side_b16_16f": partial(_ssv2_side, B16, 16, width=320, lr=1e-3),  # 71.5, with 6 views
    "ssv2_side_l14_8f": partial(_ssv2_side, L14, 8, width=512, lr=1e-4),  # 71.8
    "k400_side_b16_8f": partial(_k400_side, B16, 8),  # 83.6
}


def get_recipe(name: str) -> RunConfig:
    """Returns the config of a recipe. Raises ConfigError, with the nearest name, if there is no such recipe."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe named {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()
