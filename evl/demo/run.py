"""The demo: make videos, train EVL and a linear probe, judge both, predict one video."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evl.config import RunConfig, replace
from evl.demo.videos import CLASSES, make_videos
from evl.evaluation import Evaluation
from evl.inference import predict
from evl.training import train
from evl.types import Prediction

log = logging.getLogger("evl")
PER_CLASS = {"train": 30, "val": 12}


@dataclass(frozen=True)
class DemoResult:
    """``evaluations``: EVL's and the linear probe's, by name; ``chance``: top-1 of guessing, in percent."""

    folder: Path
    evaluations: dict[str, Evaluation]
    chance: float
    example: Prediction
    class_names: tuple[str, ...]


def demo_config(videos: Path) -> RunConfig:
    """A few minutes on two cores: the embedded 64 px backbone, three decoder layers, 8 frames 4 apart."""
    return replace(
        RunConfig(),
        data={"path": str(videos)},
        model={"taps": "last 3"},
        clip={"num_frames": 8, "stride": 4},
        augment={"rand_augment": None, "crop_area": (0.4, 1.0), "flip": 0.5},
        training={"steps": 160, "batch_size": 16, "lr": 1e-3, "warmup_steps": 10, "eval_every": 40, "save_every": 60},
        evaluation={"num_clips": 3, "num_crops": 1},
    )


def run_demo(folder: Path, *, bar: Callable = lambda description, total: lambda done, note: None) -> DemoResult:
    """Everything lands below ``folder/<date-time>``. ``bar(description, total)`` -> a function that hears of counts."""
    folder = Path(folder) / time.strftime("%Y%m%d-%H%M%S")
    videos = folder / "videos"
    total = len(CLASSES) * sum(PER_CLASS.values())
    log.info("making %d short H.264 videos of %d classes in %s", total, len(CLASSES), videos)
    advance, done = bar("making videos", total), iter(range(1, total + 1))
    make_videos(videos, per_class=PER_CLASS, progress=lambda: advance(next(done), ""))
    config = demo_config(videos)
    evaluations = {}
    # the probe's learning rate is the best of the three tried for it (1e-3, 5e-3, 2e-2)
    variants = {
        "EVL": {"model": {"decoder": "evl"}},
        "linear probe": {"model": {"decoder": "linear"}, "training": {"lr": 2e-2}},
    }
    for name, changes in variants.items():
        log.info("training %s on the frozen backbone", name)
        advance = bar(f"training {name}", config.training.steps)
        one = replace(config, **changes)

        def report(progress, advance=advance):
            if progress.phase == "training":
                advance(progress.step, progress.note)

        result = train(one, folder / name.replace(" ", "-").lower(), progress=report)
        evaluations[name] = result.evaluation
        if name == "EVL":
            model = result.model
    example = sorted((videos / "val").rglob("*.mp4"))[0]
    (prediction,) = predict(model, [example]).predictions
    return DemoResult(folder, evaluations, 100 / len(CLASSES), prediction, model.class_names)
