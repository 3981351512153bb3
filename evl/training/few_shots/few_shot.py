"""Few-shot: trains learners on K videos per class from a store of features, with several draws of the videos.

Decoder and head are small, and the features of a few videos fit into memory, so each run takes seconds. Nothing is
tuned here, and no step is chosen: every model is judged after its last step.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.manifests.manifest import write_manifest
from evl.errors import ConfigError, NotFiniteError, RunError
from evl.evaluation import Evaluation, encoder_for, mean_interval, write_evaluation
from evl.evaluation.evaluate import labels_of, selecting_metric
from evl.evaluation.metrics import find_metrics
from evl.models import Classifier
from evl.models.registry import reads_maps
from evl.runtime.distributed import World, join_world
from evl.runtime.files import append_json, read_json_lines
from evl.runtime.out_folder import Resume, build_folder
from evl.runtime.progress import Progress, Report
from evl.saving import save_model
from evl.store.store import FeatureStore
from evl.streams import Subset
from evl.streams.memory import Cached
from evl.training.few_shots.report import FewShotResult, Shots, write_few_shot
from evl.training.going_on import refuse_changes
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.training.loop import fit
from evl.training.run import make_model, with_steps
from evl.training.sources import StoredStreams, judge, open_store
from evl.training.work_folder import WorkFolder

log = logging.getLogger("evl")
ROWS = "rows.jsonl"  # a line for each finished K


def few_shot(
    config: RunConfig | None,
    out: str | Path,
    *,
    shots: Sequence[int] = (),
    draws: int = 5,
    keep_runs: bool = False,
    resume: Resume = False,
    device: str | None = None,
    progress: Report = lambda report: None,
) -> FewShotResult:
    """Trains ``draws`` new learners for each K in ``shots``, each on K training videos per class, and judges them.

    All are judged on the validation videos of the store. Draw d of K draws its videos by the generator of (seed, K, d),
    and its initial values, order and dropout by seed + d. A batch has ``training.batch_size`` clips, or all videos if
    they are fewer. The number of steps is that of any run (``with_steps``: 30 epochs, but at least 200). ``out`` gets
    ``shots.json`` and ``shots.png``. Under torchrun the processes share the draws. The arguments are those of
    ``evl.few_shot``; ``config.data.features`` is the store. Raises errors of ``evl.errors``.
    """
    folder = WorkFolder(out, "few_shot.yaml", "shots.json")
    with join_world(device) as world, ExitStack() as held:
        done: list[Shots] = []
        goes_on = world.from_main(lambda: held.enter_context(folder.held(resume)))
        if goes_on:
            before = folder.read(shots=tuple[int, ...], draws=int, keep_runs=bool)
            if folder.is_finished and resume != "auto":
                raise RunError(f"{folder.path} is finished already; start anew, with another `out`")
            done = _finished_rows(folder.path / ROWS)
            if config is None:
                config, shots, draws, keep_runs = before
        config, store = _checked(config or RunConfig(), shots, draws)
        if goes_on:
            asked = {"`shots`": tuple(shots), "`draws`": draws, "`keep_runs`": keep_runs}
            others = {name: pair for name, *pair in zip(asked, before[1:], asked.values(), strict=True)}
            refuse_changes(before[0], config, others=others)
        else:
            world.only_main(lambda: folder.create(config, shots=list(shots), draws=draws, keep_runs=keep_runs))
        runs, rows = _Runs(config, store, world), list(done)
        for number, k in enumerate(shots):
            if k in {row.shots for row in done}:
                continue
            runs.warn_of_small_classes(k)
            kept = folder.path / "runs" if keep_runs else None
            row = runs.row(k, draws, progress, (number, len(shots)), kept)
            spread = f"95 % interval of the mean {row.interval}" if row.has_interval else row.interval
            log.info("%d videos per class: top-1 %.2f %%, %s", k, row.mean, spread)
            rows.append(row)
            world.only_main(lambda row=row: append_json(folder.path / ROWS, asdict(row)))
        rows.sort(key=lambda row: row.shots)
        last = rows[-1]
        known = find_metrics(config.evaluation.metrics)
        metrics = {name: known[name] for name in known if name in last.scores}
        result = FewShotResult(tuple(rows), draws, last.protocol, last.damaged, folder.path, last.chance, metrics)
        world.only_main(lambda: write_few_shot(result, config))
    return result


def _finished_rows(path: Path) -> list[Shots]:
    """The rows of the finished K. A line that was cut off is left out."""
    rows = []
    for values in read_json_lines(path):
        with suppress(ValidationError):
            rows.append(TypeAdapter(Shots).validate_python(values))
    return rows


def draw_videos(
    labels: Sequence[int], num_classes: int, shots: int, *, seed: int, draw: int, without: Sequence[int] = ()
) -> list[int]:
    """Draws ``shots`` videos of each class, or all if it has fewer, by the generator of (seed, shots, draw).

    Videos in ``without`` are never drawn.
    """
    generator = np.random.default_rng([seed, shots, draw])
    chosen: list[int] = []
    excluded = set(without)
    for y in range(num_classes):
        own = [index for index, label in enumerate(labels) if label == y and index not in excluded]
        chosen += sorted(int(index) for index in generator.permutation(own)[:shots])
    return chosen


class _Runs:
    """The runs on one store. Features are made once for all of them."""

    def __init__(self, config: RunConfig, store: FeatureStore, world: World):
        self.config, self.store, self.world = config, store, world
        self.alone = World(0, 1, world.device)  # each run has one process
        self.split = store.splits["train"]
        self.labels = labels_of(self.split.samples, store.class_names)
        self.encoder = encoder_for(config.model, store)
        maps = reads_maps(config.model)
        self.source = StoredStreams(config, store, self.encoder.taps, world, needs_maps=maps)
        # whether training draws other frames of a stored clip in each epoch
        varies = store.description.num_frames("train") != config.clip.num_frames

        def name_of(key: tuple[int, int]) -> tuple[int, int]:
            epoch, index = key
            return (epoch if varies else epoch % self.split.num_clips(index)), index

        self.stream = Cached(self.source.training(), self.labels, name_of)

    def draw(self, shots: int, draw: int) -> list[int]:
        seed, names = self.config.training.seed, self.store.class_names
        return draw_videos(self.labels, len(names), shots, seed=seed, draw=draw, without=tuple(self.split.damaged))

    def settings(self, shots: int) -> RunConfig:
        """The config of a run. A batch has at most all videos, and a micro-batch at most as many as in the config."""
        training, count = self.config.training, len(self.draw(shots, 0))
        batch_size = min(training.batch_size, count)
        least = math.ceil(batch_size / max(1, training.batch_size // training.accumulation))
        accumulation = next(n for n in range(least, batch_size + 1) if batch_size % n == 0)
        own = replace_settings(self.config, training={"batch_size": batch_size, "accumulation": accumulation})
        return with_steps(own, count)

    def row(self, shots: int, draws: int, progress: Report, place: tuple[int, int], kept: Path | None) -> Shots:
        """Trains and judges the runs of all draws. ``place``: the number of this K, and of how many. ``kept``: a folder
        for the models and their predictions."""
        number, count = place
        mine = list(range(self.world.rank, draws, self.world.size))
        models, seconds = [], []
        for before, draw in enumerate(mine, number * len(mine)):
            started = time.perf_counter()
            note = _Note(progress, before, count * len(mine), f"{shots} videos per class, draw {draw + 1}")
            models.append(self.train(shots, draw, note))
            seconds.append(time.perf_counter() - started)
        try:
            evaluations = self.judge(models, progress) if models else []
        except NotFiniteError as error:
            names = ", ".join(str(mine[number] + 1) for number in error.models)
            raise RunError(
                f"{shots} videos per class, draw {names}: the scores of the trained model are not finite; lower "
                "training.lr, and begin in another `out`"
            ) from None
        for draw, model, evaluation in zip(mine, models, evaluations, strict=True) if kept is not None else ():
            with build_folder(kept / f"{shots:02d}_shots_draw_{draw + 1}", replace=True) as own:
                self.keep(own, shots, draw, model, evaluation)
        values = [evaluation.metrics.values() for evaluation in evaluations]
        results = dict(zip(mine, zip(values, seconds, strict=True), strict=True))
        for others in self.world.gather(results):
            results |= others
        judged = self.world.gather(evaluations[:1])[0][0]
        values, seconds = zip(*(results[draw] for draw in range(draws)), strict=True)
        scores = {name: tuple(one[name] for one in values) for name in judged.metrics.comparable}
        training, num_videos = self.settings(shots).training, len(self.draw(shots, 0))
        return Shots(
            shots, scores["top1"], *mean_interval(scores["top1"]), num_videos, training.steps, training.batch_size,
            seconds, judged.protocol, judged.damaged, judged.metrics.chance, scores,
        )  # fmt: skip

    def train(self, shots: int, draw: int, note: Report) -> Classifier:
        shared, chosen = self.settings(shots), self.draw(shots, draw)
        config = replace_settings(shared, training={"seed": shared.training.seed + draw})
        described = f"{shots} videos per class of {self.store.path.name}, draw {draw + 1}"
        model = make_model(config, self.store.class_names, self.encoder, self.world.device, described)
        learners = Learners([Learner(described, config, model)])
        fit(Subset(self.stream, chosen), learners, config.training, self.alone, progress=note)
        return model.eval()

    def judge(self, models: Sequence[Classifier], progress: Report) -> list[Evaluation]:
        return judge(models, self.source, self.alone, progress, batch_size=self.config.evaluation.batch_size)

    def keep(self, folder: Path, shots: int, draw: int, model: Classifier, evaluation: Evaluation) -> None:
        save_model(model, folder, scores=evaluation.to_dict())
        write_manifest(folder / "train.csv", [self.split.samples[index] for index in self.draw(shots, draw)])
        write_evaluation(folder, evaluation)

    def warn_of_small_classes(self, shots: int) -> None:
        usable = [y for index, y in enumerate(self.labels) if index not in self.split.damaged]
        counts = np.bincount(usable, minlength=len(self.store.class_names))
        if (small := np.flatnonzero(counts < shots)).size:
            log.warning(
                "%d of %d classes have fewer than %d training videos, such as %r with %d: all of these are taken",
                len(small), len(counts), shots, self.store.class_names[small[0]], counts[small[0]],
            )  # fmt: skip


class _Note:
    """Reports the steps of one run as steps of all runs."""

    def __init__(self, progress: Report, before: int, total: int, note: str):
        self.progress, self.before, self.total, self.note = progress, before, total, note

    def __call__(self, report: Progress) -> None:
        step, steps = report.step, report.steps
        self.progress(replace(report, step=self.before * steps + step, steps=self.total * steps, note=self.note))


def _checked(config: RunConfig, shots: Sequence[int], draws: int) -> tuple[RunConfig, FeatureStore]:
    """(config with the store's videos, the store). Raises ConfigError if few-shot runs are impossible with these."""
    if config.data.features is None:
        raise ConfigError(
            "few-shot runs need a store of features: make one with evl extract, then give it as `features=STORE`"
        )
    if not shots:
        raise ConfigError("give `shots`, rising numbers of videos of each class, such as 1,2,4,8")
    if list(shots) != sorted(set(shots)) or shots[0] < 1:
        raise ConfigError(f"`shots={','.join(map(str, shots))}`: expected rising numbers of videos, such as 1,2,4,8")
    if not 2 <= draws <= 20:
        raise ConfigError(f"`draws={draws}`: expected 2 to 20 draws")
    if config.training.init is not None:
        raise ConfigError(
            "few-shot trains new models: leave out `init`, whose model may have been trained on these videos"
        )
    config, store = open_store(config)
    if "val" not in store.splits:
        raise ConfigError(f"{store.path} has no validation videos to judge few-shot runs by")
    selecting_metric(config, store.class_names, store.splits["val"].samples)
    return config, store
