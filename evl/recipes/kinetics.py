"""The recipes for Kinetics-400 as released (docs/method.md sections 7 and 8).

The release has AdamW, a cosine over 50,000 steps, batches of 256, fp16, dropout 0.5 in two places, RandAugment, random
resized crops, bilinear resizing without antialias, and a query token that starts at zero. It was meant to flip clips,
but never did.
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
)

B16 = "vit_base_patch16_clip_quickgelu_224.openai"
L14 = "vit_large_patch14_clip_quickgelu_224.openai"
L14_336 = "vit_large_patch14_clip_quickgelu_336.openai"


def released(backbone: str, num_frames: int, stride: int, *, num_clips: int, num_crops: int) -> RunConfig:
    """Returns the released recipe for a backbone, a clip, and the views of evaluation."""
    return RunConfig(
        backbone=BackboneConfig(backbone),
        model=ModelConfig(taps="last 4", mlp_dropout=0.5, head_dropout=0.5, query_init="zero"),
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
            precision="fp16",
            eval_every=5_000,
            save_every=1_000,
        ),
        evaluation=EvaluationConfig(num_clips=num_clips, num_crops=num_crops),
    )


KINETICS: dict[str, Callable[[], RunConfig]] = {
    "k400_vitb16_8x16": partial(released, B16, 8, 16, num_clips=3, num_crops=1),  # reported top-1: 82.8
    "k400_vitb16_16x16": partial(released, B16, 16, 16, num_clips=1, num_crops=3),  # 83.7
    "k400_vitb16_32x8": partial(released, B16, 32, 8, num_clips=1, num_crops=3),  # 84.3
    "k400_vitl14_8x16": partial(released, L14, 8, 16, num_clips=3, num_crops=1),  # 86.3
    "k400_vitl14_16x16": partial(released, L14, 16, 16, num_clips=1, num_crops=3),  # 86.9
    "k400_vitl14_32x8": partial(released, L14, 32, 8, num_clips=1, num_crops=3),  # 87.7
    "k400_vitl14_336_32x8": partial(released, L14_336, 32, 8, num_clips=1, num_crops=3),  # 87.7
}
