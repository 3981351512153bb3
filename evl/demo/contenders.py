"""What the demo compares, and all settings of it: the one place to change them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evl.backbones.base import tapped_blocks
from evl.config import RunConfig, replace
from evl.demo.results import ATTENTIVE, EVL, LINEAR, SIDE, SIDE_CAUSAL, UNTRAINED, ZERO_SHOT
from evl.models.registry import reads_maps, taps_of
from evl.types import BackboneSpec

BACKBONE = "evl_clip_tiny"
NUM_FRAMES = 8
BATCH_SIZE = 16
POINTS = 40  # of a curve
_SIDE = {"decoder": "side", "taps": "all", "side_width": 32}
_SIDE_TRAINING = {"lr": 1.5e-3}
# how each variant differs from EVL, by section of a config; chosen on objects that are not judged (docs/evidence.md)
CHANGES: dict[str, dict[str, dict]] = {
    EVL: {},
    SIDE: {"model": _SIDE, "training": _SIDE_TRAINING},
    SIDE_CAUSAL: {"model": _SIDE | {"causal": True}, "training": _SIDE_TRAINING},
    ATTENTIVE: {"model": {"decoder": "attentive", "probe_blocks": 1}},
    LINEAR: {
        "model": {"decoder": "linear"},
        "training": {"lr": 2e-2, "weight_decay": 0.0, "warmup_steps": 0, "clip_grad_norm": None},
    },
    UNTRAINED: {"backbone": {"pretrained": False}},
    ZERO_SHOT: {"model": {"decoder": "zero_shot", "prompts": ["a {}", "a photo of a {}"]}},
}
LINEAR_STEPS = 5  # the linear probe takes this many times the steps of the others: its steps cost little
SIDES = (SIDE, SIDE_CAUSAL)
TOGETHER = (SIDES, (EVL, ATTENTIVE))  # variants on the same features; those of a group train side by side


@dataclass(frozen=True)
class Size:
    """The numbers of training videos, of test videos, of training steps, and of seeds (all is repeated per seed).

    ``side_steps``: how many of the steps side networks take, as a share, because each costs three of EVL's. ``causal``:
    whether the causal side network is trained, too.
    """

    train: int = 2352
    test: int = 560  # both multiples of 112, the pairs of motion and kind of object
    steps: int = 800
    seeds: int = 1
    side_steps: float = 1.0
    causal: bool = True

    def steps_of(self, variant: str) -> int:
        if variant in SIDES:
            return max(1, round(self.side_steps * self.steps))
        return self.steps * (LINEAR_STEPS if variant == LINEAR else 1)

    def chosen(self, variants: Iterable[str]) -> list[str]:
        """Those of the variants that are trained."""
        return [one for one in variants if self.causal or one != SIDE_CAUSAL]


# in a few minutes there is no time for the causal network, which is for streams, nor for all steps of the other one
DEFAULT = Size(side_steps=0.5, causal=False)
FULL = Size(train=4032, test=1008, steps=1600, seeds=5)


def config_of(variant: str, task: str, videos: Path, steps: int, seed: int) -> RunConfig:
    """All settings of one variant on one task; ``videos``: the folder of the tasks' manifests."""
    config = replace(
        RunConfig(),
        backbone={"name": BACKBONE},
        data={"path": str(videos / f"{task}.csv")},
        # heads 16 wide: with the encoder's two heads of 64, the query needs twice the steps to begin to learn
        model={"decoder": "evl", "taps": "last 2", "num_heads": 8, "mlp_dropout": 0.0, "head_dropout": 0.0},
        clip={"sampling": "segment", "num_frames": NUM_FRAMES},
        augment={"rand_augment": None, "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0},
        training={
            "steps": steps, "log_every": math.ceil(steps / POINTS), "batch_size": BATCH_SIZE, "lr": 3e-3,
            "label_smoothing": 0.1, "seed": seed, "precision": "fp32",
        },
        evaluation={"num_clips": 1, "num_crops": 1},
    )  # fmt: skip
    return replace(config, **CHANGES[variant])


def blocks_of(configs: Iterable[RunConfig], spec: BackboneSpec) -> tuple[tuple[int, ...], frozenset[int]]:
    """Returns (the blocks whose token maps some of these decoders read, those whose neighbor maps)."""
    tokens: set[int] = set()
    mapped: set[int] = set()
    for config in configs:
        blocks = set(tapped_blocks(taps_of(config.model), spec.depth, spec.name))
        tokens |= blocks
        mapped |= blocks if reads_maps(config.model) else set()
    return tuple(sorted(tokens)), frozenset(mapped)
