"""The demo: makes videos of moving things, keeps their frozen features, trains and judges decoders on two tasks."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from evl._version import __version__
from evl.api.judging import predict
from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.embedded import unknown_words_on_one_line
from evl.config import RunConfig
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import read_manifest
from evl.datasets.motions import make_motions
from evl.demo.compare import Contender, read_clips, result_of, save_run, train_contenders
from evl.demo.contenders import BACKBONE, BATCH_SIZE, DEFAULT, FULL, NUM_FRAMES, TOGETHER, Size, blocks_of, config_of
from evl.demo.folder import demo_folder
from evl.demo.report.page import write_report
from evl.demo.results import (
    EVL,
    LINEAR,
    ROWS,
    SIDE,
    TASKS,
    UNTRAINED,
    ZERO_SHOT,
    DemoResult,
    Example,
    VariantResult,
)
from evl.inference import explain
from evl.models import Classifier
from evl.runtime.progress import Progress, Report, showing
from evl.saving import load
from evl.streams.memory import InMemory, extract, pooled, threads
from evl.training.learners import with_taps
from evl.types import Sample

NUM_EXAMPLES = 8
Bar = Callable[[str, int], Callable[[int], None]]  # what is done, number of parts → called with how many are done


def run_demo(
    out: str | Path = "demo",
    *,
    full: bool = False,
    seed: int = 0,
    seeds: int | None = None,
    videos: int | None = None,
    steps: int | None = None,
    progress: bool | Report = True,
) -> DemoResult:
    """Makes videos, trains, judges and predicts; all files are written below ``out/<date-time>``.

    Args:
        full: more videos, more steps, five seeds.
        seed: decides videos, initial values and order; runs are saved for the first seed.
        seeds: how many: ``seed``, ``seed + 1``, …, each with its own videos. None: those of the size.
        videos: how many to train on; a third as many are made to judge by. None: those of the size.
        steps: of training; None: those of the size.
        progress: as for ``evl.train``.

    A demo that fails or is stopped removes its folder; that of a killed one is removed by the next demo. Raises
    SaveError if the folder cannot be made.
    """
    size = FULL if full else DEFAULT
    if videos is not None:
        size = dataclasses.replace(size, train=videos, test=max(1, videos // 3))
    chosen = {name: value for name, value in {"steps": steps, "seeds": seeds}.items() if value is not None}
    size = dataclasses.replace(size, **chosen)
    with showing(progress) as report, demo_folder(out) as folder:
        return _run(folder, size, seed, report)


def _run(folder: Path, size: Size, seed: int, report: Report) -> DemoResult:
    clock = Stopwatch()
    outcomes: list[VariantResult] = []
    with unknown_words_on_one_line():  # of both tasks and all seeds
        for number in range(size.seeds):
            this_bar = _bar(report, f"seed {number + 1} of {size.seeds}" if size.seeds > 1 else "")
            videos = folder / ("motions" if number == 0 else f"motions-seed-{seed + number}")
            with clock.part("making videos"):
                data = make_data(videos, size, seed + number, this_bar)
            with clock.part("decoding"):
                data.decode(this_bar)
            with threads() as pool:
                made, num_bytes = _compare(data, folder if number == 0 else None, pool, this_bar, clock)
            outcomes.extend(made)
            if number == 0:
                with clock.part("examples"):
                    model = load(next(one.folder for one in made if (one.variant, one.task) == (EVL, "motion")))
                    examples = make_examples(model, data)
                    # from the file, as 'evl predict' does
                    (prediction,) = predict(model, [examples[0].path], progress=False).predictions
    chance = {one.task: 100 / len(one.evaluation.class_names) for one in outcomes}
    outcomes.sort(key=lambda one: (ROWS.index(one.variant), TASKS.index(one.task), one.seed))
    result = DemoResult(
        folder=folder,
        outcomes=tuple(outcomes),
        chance=chance,
        examples=examples,
        prediction=prediction,
        class_names=model.class_names,
        settings=_settings(size, seed, num_bytes),
        seconds=clock.seconds,
    )
    write_report(folder / "report.html", result)
    return result


def _bar(report: Report, note: str) -> Bar:
    def start(description: str, total: int) -> Callable[[int], None]:
        return lambda done: report(Progress(description, done, total, note))

    return start


class Data:
    """The videos of one seed. ``samples``: by task, the same videos in the same order, training videos first.

    ``clips`` (n,T,3,H,W) is None until ``decode`` has run.
    """

    def __init__(self, videos: Path, size: Size, seed: int):
        self.videos, self.size, self.seed = videos, size, seed
        splits = {task: read_manifest(videos / f"{task}.csv").splits for task in TASKS}
        self.samples: dict[str, tuple[Sample, ...]] = {
            task: (*split["train"], *split["val"]) for task, split in splits.items()
        }
        self.train_rows = range(len(splits["motion"]["train"]))
        self.test_rows = range(len(self.train_rows), len(self.samples["motion"]))
        self.clips: Tensor | None = None

    def config(self, variant: str, task: str) -> RunConfig:
        return config_of(variant, task, self.videos, self.size.steps_of(variant), self.seed)

    def backbone(self, *variants: str) -> tuple[FrozenBackbone, frozenset[int]]:
        """The encoder of these variants, with all blocks that they read, and the blocks whose maps they read."""
        configs = [self.config(variant, "motion") for variant in variants]
        backbone = create_backbone(configs[0].backbone, "all")
        taps, mapped = blocks_of(configs, backbone.spec)
        return with_taps(backbone, taps), mapped

    def decode(self, bar: Bar) -> None:
        samples, clip = self.samples["motion"], self.config(EVL, "motion").clip
        preprocessing, workers = self.backbone(EVL)[0].preprocessing, default_num_workers()
        advance = bar("decoding", len(samples))
        self.clips = read_clips(samples, clip, preprocessing, num_workers=workers, progress=advance)

    def contenders(self, variants: Sequence[str], backbone: FrozenBackbone, taps: Sequence[int]) -> list[Contender]:
        count = len(self.train_rows)
        return [
            Contender(variant, task, self.config(variant, task), self.samples[task], backbone, count, taps)
            for variant in variants
            for task in TASKS
        ]


def make_data(videos: Path, size: Size, seed: int, bar: Bar) -> Data:
    advance = bar("making videos", size.train + size.test)
    counts = {"train": size.train, "test": size.test}
    make_motions(videos, counts, seed=seed, workers=default_num_workers(), progress=lambda done, total: advance(done))
    return Data(videos, size, seed)


def _compare(
    data: Data, folder: Path | None, pool: Executor, bar: Bar, clock: Stopwatch
) -> tuple[list[VariantResult], int]:
    """Trains and judges every variant on both tasks; returns the results and the bytes of the largest features."""

    def features_of(variants: Sequence[str], what: str) -> InMemory:
        backbone, mapped = data.backbone(*variants)
        advance = bar(what, len(data.clips))
        with clock.part(what):
            return extract(backbone, data.clips, data.samples["motion"], pool, mapped=mapped, progress=advance)

    def results(variants: Sequence[str], backbone: FrozenBackbone, features: InMemory) -> list[VariantResult]:
        contenders = data.contenders(variants, backbone, features.encoder.taps)
        advance = bar(f"training {', '.join(variants)}", contenders[0].config.training.steps)
        with clock.part("training and judging"):
            train_contenders(contenders, features, data.train_rows, pool, advance)
            return [_judge(one, features, data, folder) for one in contenders]

    groups = [data.size.chosen(group) for group in TOGETHER]
    features = features_of([variant for group in groups for variant in group], "features")
    backbone, num_bytes = features.encoder, features.num_bytes
    outcomes = [one for group in groups for one in results(group, backbone, features)]
    with clock.part("training and judging"):
        untrained = data.contenders([ZERO_SHOT], backbone, backbone.taps)
        outcomes += [result_of(one, one.judge(features, data.test_rows), None) for one in untrained]
    outcomes += results([LINEAR], backbone, pooled(features, backbone.spec.num_prefix_tokens))
    del features  # frees their memory before the features of the untrained backbone are made
    features = features_of([UNTRAINED], "features, untrained backbone")
    outcomes += results([UNTRAINED], features.encoder, features)
    return outcomes, num_bytes


def _judge(one: Contender, features: InMemory, data: Data, folder: Path | None) -> VariantResult:
    evaluation = one.judge(features, data.test_rows)
    run = None
    if folder is not None:
        run = folder / f"{one.variant}-{one.task}".lower().replace(",", "").replace(" ", "-")
        save_run(one, evaluation, run, data.train_rows, data.test_rows)
    return result_of(one, evaluation, run)


def make_examples(model: Classifier, data: Data) -> tuple[Example, ...]:
    """The first test video of each of ``NUM_EXAMPLES`` classes, named correctly or not, with the model's attention."""
    samples, preprocessing = data.samples["motion"], model.card.preprocessing
    first = {samples[row].label: row for row in reversed(data.test_rows)}
    rows = sorted(first.values())[:NUM_EXAMPLES]
    clips = data.clips[rows].float()  # (B,T,3,H,W)
    found = explain(model, clips)
    mean, std = (torch.tensor(x)[:, None, None] for x in (preprocessing.mean, preprocessing.std))
    pictures = ((clips * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).movedim(2, -1).numpy()
    scores = found.logits.double().softmax(-1).tolist()
    return tuple(
        Example(
            path=Path(samples[row].path),
            frames=pictures[b],
            attention=found.attention[:, b].numpy(),
            prefix_share=found.prefix_share[:, b].numpy(),
            label=samples[row].label,
            scores=tuple(scores[b]),
            class_names=model.class_names,
        )
        for b, row in enumerate(rows)
    )


class Stopwatch:
    """``seconds``: part of the work -> its time, all seeds together."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str):
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _settings(size: Size, seed: int, num_bytes: int) -> dict[str, str]:
    return {
        "videos": f"{size.train} to train on, {size.test} to judge by: other objects, drawn by another artist",
        "seeds": ", ".join(str(seed + number) for number in range(size.seeds)),
        "clips": f"{NUM_FRAMES} frames, from the middles of equal parts of a video; one view",
        "backbone": f"{BACKBONE}, frozen",
        "training": f"{size.steps} steps of {BATCH_SIZE} clips; side networks {size.steps_of(SIDE)}, the linear probe "
        f"{size.steps_of(LINEAR)}",
        "features": f"{num_bytes / 1e9:.2f} GB in memory, 16 bits a number",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"evl {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
