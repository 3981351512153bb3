"""The demo: make videos of moving things, store frozen features of them, train and judge five decoders on two tasks."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evl import __version__
from evl.assembly import load
from evl.backbones import FrozenBackbone, create_backbone
from evl.config import RunConfig, replace
from evl.data.loader import default_num_workers
from evl.data.manifest import read_manifest
from evl.demo.clips import read_clips
from evl.demo.compare import Contender, judge, outcome, save_run, train
from evl.demo.features import StoredFeatures, extract, pooled
from evl.demo.motions import make_motions
from evl.demo.results import (
    ATTENTIVE, EVL, LINEAR, NO_TEMPORAL, TASKS, UNTRAINED, VARIANTS, DemoResult, Example, Outcome,
)  # fmt: skip
from evl.inference import predict
from evl.types import Sample

log = logging.getLogger("evl")
BACKBONE = "evl_clip_tiny"
TAPS = "last 3"
NUM_FRAMES = 8
# what differs from EVL, by section of a config; chosen on other objects than are judged (docs/evidence.md)
CHANGES: dict[str, dict[str, dict]] = {
    EVL: {},
    NO_TEMPORAL: {"model": {"temporal_conv": False, "temporal_position": False, "cross_frame": False}},
    ATTENTIVE: {"model": {"decoder": "attentive", "probe_blocks": 1}},
    LINEAR: {"model": {"decoder": "linear", "head_dropout": 0.0}, "training": {"lr": 5e-3, "weight_decay": 0.0}},
    UNTRAINED: {"backbone": {"pretrained": False}},
}
LINEAR_STEPS = 5  # of the linear probe for each of the others': it costs nothing
Bar = Callable[[str, int], Callable[..., None]]


@dataclass(frozen=True)
class Size:
    """Videos to train on and to judge by, steps of training, and how many times all of it is done anew."""

    train: int = 2000
    test: int = 600
    steps: int = 400
    seeds: int = 1


DEFAULT = Size()
FULL = Size(train=3000, test=1000, steps=700, seeds=5)


def config_of(variant: str, videos: Path, task: str, steps: int, seed: int) -> RunConfig:
    """All settings of one variant; ``videos``: the folder with the tasks' manifests."""
    config = replace(
        RunConfig(),
        backbone={"name": BACKBONE},
        data={"path": str(videos / f"{task}.csv")},
        model={"taps": TAPS, "mlp_dropout": 0.3, "head_dropout": 0.3},
        clip={"sampling": "segment", "num_frames": NUM_FRAMES},
        augment={"rand_augment": None, "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0},
        training={
            "steps": steps * (LINEAR_STEPS if variant == LINEAR else 1),
            "batch_size": 32, "lr": 1e-3, "label_smoothing": 0.1, "seed": seed, "precision": "fp32",
        },
        evaluation={"num_clips": 1, "num_crops": 1},
    )  # fmt: skip
    return replace(config, **CHANGES[variant])


def run_demo(
    folder: str | Path, *, size: Size = DEFAULT, seed: int = 0, bar: Bar = lambda description, total: lambda *_: None
) -> DemoResult:
    """Everything lands below ``folder/<date-time>``; with several seeds, each makes videos, initial values and order
    anew. ``bar(description, total)`` -> a function that hears of counts, and a note."""
    folder = Path(folder).absolute() / time.strftime("%Y%m%d-%H%M%S")
    clock = _Clock()
    outcomes: list[Outcome] = []
    examples: tuple[Example, ...] = ()
    for number in range(size.seeds):
        one = _Seed(folder, size, seed + number, number == 0, bar, clock)
        outcomes.extend(one.compare())
        if number == 0:
            with clock.part("examples"):
                examples = one.explain()
    first = next(one for one in outcomes if (one.variant, one.task) == (EVL, "motion"))
    with clock.part("examples"):  # by the saved run, from the file, as 'evl predict' does
        model = load(first.folder)
        (prediction,) = predict(model, [examples[0].path]).predictions
    chance = {task: 100 / len(next(x for x in outcomes if x.task == task).evaluation.class_names) for task in TASKS}
    settings = _settings(size, seed, one.num_bytes)
    return DemoResult(
        folder, _sorted(outcomes), chance, examples, prediction, model.class_names, settings, clock.seconds
    )


class _Seed:
    """Videos, features and outcomes of one seed."""

    def __init__(self, folder: Path, size: Size, seed: int, is_first: bool, bar: Bar, clock: _Clock):
        self.folder, self.size, self.seed, self.is_first, self.bar, self.clock = (
            folder,
            size,
            seed,
            is_first,
            bar,
            clock,
        )
        self.videos = folder / ("motions" if is_first else f"motions-seed-{seed}")
        self.num_bytes = 0

    def compare(self) -> Iterator[Outcome]:
        with self.clock.part("making videos"):
            advance = self.bar("making videos", self.size.train + self.size.test)
            counts = {"train": self.size.train, "val": 0, "test": self.size.test}
            make_motions(self.videos, counts, self.seed, workers=default_num_workers(), progress=advance)
        self.samples = {task: self._samples(task) for task in TASKS}
        self.train_rows = range(self.size.train)
        self.test_rows = range(self.size.train, self.size.train + self.size.test)
        backbone = create_backbone(self._config(EVL, "motion").backbone, TAPS)
        self.clips = self._read_clips(backbone)
        features = self._extract(backbone, "features, pretrained")
        yield from self._train_and_judge([EVL, NO_TEMPORAL, ATTENTIVE], backbone, features)
        yield from self._train_and_judge([LINEAR], backbone, pooled(features, backbone.spec.num_prefix_tokens))
        del features  # before those of the twin are made
        backbone = create_backbone(self._config(UNTRAINED, "motion").backbone, TAPS)
        yield from self._train_and_judge([UNTRAINED], backbone, self._extract(backbone, "features, untrained"))

    def explain(self) -> tuple[Example, ...]:
        """The first judged video of each motion, eight at most."""
        return ()

    def _samples(self, task: str) -> tuple[Sample, ...]:
        """All of a task's videos, those to train on first; the same videos in the same order for both tasks."""
        splits = read_manifest(self.videos / f"{task}.csv").splits
        return (*splits["train"], *splits["val"])

    def _config(self, variant: str, task: str) -> RunConfig:
        return config_of(variant, self.videos, task, self.size.steps, self.seed)

    def _read_clips(self, backbone: FrozenBackbone) -> Tensor:
        samples, clip = self.samples["motion"], self._config(EVL, "motion").clip
        with self.clock.part("decoding"):
            advance = self.bar("decoding", len(samples))
            return read_clips(
                samples, clip, backbone.preprocessing, num_workers=default_num_workers(), progress=advance
            )

    def _extract(self, backbone: FrozenBackbone, what: str) -> StoredFeatures:
        with self.clock.part(what):
            features = extract(backbone, self.clips, progress=self.bar(what, len(self.clips)))
        self.num_bytes = max(self.num_bytes, features.num_bytes)
        return features

    def _train_and_judge(
        self, variants: Sequence[str], backbone: FrozenBackbone, features: StoredFeatures
    ) -> Iterator[Outcome]:
        contenders = [
            Contender(variant, task, self._config(variant, task), self.samples[task], backbone)
            for variant in variants
            for task in TASKS
        ]
        steps = contenders[0].config.training.steps
        with self.clock.part("training and judging"):
            train(contenders, features, self.train_rows, self.bar(f"training {', '.join(variants)}", steps))
            for one in contenders:
                evaluation = judge(one, features, self.test_rows)
                run = None
                if self.is_first:
                    run = self.folder / f"{one.variant}-{one.task}".lower().replace(",", "").replace(" ", "-")
                    save_run(one, evaluation, run, self.train_rows, self.test_rows)
                yield outcome(one, evaluation, run)


class _Clock:
    """Part of the work -> seconds it took, all seeds together."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str):
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _sorted(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    return tuple(sorted(outcomes, key=lambda one: (VARIANTS.index(one.variant), TASKS.index(one.task), one.seed)))


def _settings(size: Size, seed: int, num_bytes: int) -> dict[str, str]:
    return {
        "videos": f"{size.train} to train on, {size.test} to judge by, of other objects drawn by another artist",
        "seeds": ", ".join(str(seed + number) for number in range(size.seeds)),
        "clips": f"{NUM_FRAMES} frames, one from the middle of each eighth of a video",
        "backbone": f"{BACKBONE}, {TAPS} blocks",
        "training": f"{size.steps} steps of 32 clips",
        "features": f"{num_bytes / 1e9:.2f} GB in memory, 16 bits a number",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"evl {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
