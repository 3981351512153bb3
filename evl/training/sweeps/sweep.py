"""A sweep: trains many learners in one pass over the data, judges them together, and chooses one."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.base import tapped_blocks
from evl.collections.material import announce_material
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.draw import describe_split
from evl.data.splits import find_splits
from evl.errors import ConfigError, DataError, FinishedError, NotFiniteError, RunError
from evl.evaluation import Evaluation
from evl.evaluation.evaluate import selecting_metric
from evl.evaluation.stored import encoder_for
from evl.models.registry import reads_maps, taps_of
from evl.runtime.distributed import World, join_world
from evl.runtime.files import nearest_existing
from evl.runtime.out_folder import Resume, build_folder
from evl.runtime.progress import Report
from evl.saving import backbone_to_start, build_classifier
from evl.training.going_on import refuse_changes
from evl.training.keeper import RunKeeper
from evl.training.learner import Learner
from evl.training.learners import Learners, with_taps
from evl.training.loop import Interrupted, fit, make_sampler
from evl.training.outcome import outcome_of
from evl.training.run import describe_data, make_model, with_steps
from evl.training.run_folder import RunFolder
from evl.training.sources import LiveStreams, RunStreams, StoredStreams, judge, open_store
from evl.training.sweeps.grid import Grid, Point, expand
from evl.training.sweeps.plot import write_sweep
from evl.training.sweeps.results import SweepResult, collect, save_learner
from evl.training.work_folder import WorkFolder
from evl.types import EncoderFacts, Sample

log = logging.getLogger("evl")


@dataclass(frozen=True)
class _Data:
    """What all learners share. ``config`` has the seed of the order of clips."""

    config: RunConfig
    class_names: tuple[str, ...]
    missing: dict[str, tuple[Sample, ...]]
    source: RunStreams
    encoder: FrozenBackbone | EncoderFacts
    world: World


def sweep(
    config: RunConfig | None,
    grid: Sequence[str],
    out: str | Path,
    *,
    resume: Resume = False,
    device: str | None = None,
    progress: Report = lambda report: None,
    together: int | None = None,
    keep_predictions: bool = False,
) -> SweepResult:
    """Trains a learner for each point of ``grid``, judges all on the validation videos, and chooses one.

    ``out`` gets a run folder per learner (``learners/000`` …), ``best``, ``sweep.json``, ``sweep.csv``, ``sweep.png``.
    Only the chosen learner is judged on the test split, once, if there is one. The arguments are those of
    ``evl.sweep``; ``grid``: see ``grid.expand``; ``together``: see ``Learners``. With ``resume=True``, ``config`` is
    None and ``grid`` empty. After Ctrl-C a checkpoint is saved and Interrupted is raised. Raises errors of
    ``evl.errors``; FinishedError if there is nothing left to do.
    """
    folder = WorkFolder(out, "sweep.yaml", "sweep.json")
    run = RunFolder(out)  # checkpoints, until all is done
    with join_world(device) as world, ExitStack() as held:
        if world.size > 1:
            raise ConfigError(
                "a sweep runs in one process: leave torchrun out, or start several sweeps with parts of the grid"
            )
        goes_on = held.enter_context(folder.held(resume))
        if goes_on:
            config, grid, keep_predictions = _as_begun(folder, config, grid, keep_predictions)
            if folder.is_finished:
                shutil.rmtree(run.checkpoints, ignore_errors=True)  # which a process did not come to remove
                raise FinishedError(f"{folder.path} is finished already; start one with another `out`")
        wanted = expand(config or RunConfig(), grid)  # what can be refused is refused before anything is read
        data, points = _prepare(wanted, world)
        every = [_make_learner(point, data) for point in points]
        learners = Learners(every, together=together)
        _announce(learners, data)
        if data.source.features is None:
            announce_material((*data.source.samples["train"], *data.source.samples["val"]), data.config)
        if not goes_on:
            _refuse_full_disk(learners, folder.path)
            folder.create(config or RunConfig(), grid=list(grid), keep_predictions=keep_predictions)
        started = time.perf_counter()
        damaged: dict[str, str] = {}
        stream, training = data.source.training(), data.config.training
        keeper = RunKeeper(
            run, data.config, stream, world, damaged, resume=goes_on, log_curve=False, keep_last=1,
            progress=progress,
        )  # fmt: skip
        try:
            steps = fit(stream, learners, training, world, keeper, progress=progress)
            learners.release()
            trained = time.perf_counter()
            result = _judged(points, every, data, folder.path, progress)
        except DataError as error:  # the learners could not be judged
            _save_learners(every, [None] * len(every), data, folder.path, keep_predictions)
            raise RunError(
                f"the learners are trained, and in {folder.path / 'learners'}, but none was chosen: {error}"
            ) from None
        except KeyboardInterrupt as stop:
            where = str(stop) or "stopped while judging"
            raise Interrupted(f"{where}; a checkpoint is saved") from None
        except BaseException:
            if not goes_on and not any(learner.num_clips for learner in every):
                _remove_unused(folder, run)
            raise
        result = replace(
            result, damaged=damaged, steps=steps, training_seconds=trained - started,
            judging_seconds=time.perf_counter() - trained,
        )  # fmt: skip
        _save_all(every, data, folder.path, result, keep_predictions)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return result


def _remove_unused(folder: WorkFolder, run: RunFolder) -> None:
    """Removes the files of a sweep in which nothing was learned, so that the same command can begin again."""
    with contextlib.suppress(OSError):
        folder.settings.unlink(missing_ok=True)
        (folder.path / "damaged.csv").unlink(missing_ok=True)
        shutil.rmtree(run.checkpoints, ignore_errors=True)


def _as_begun(
    folder: WorkFolder, config: RunConfig | None, grid: Sequence[str], keep_predictions: bool
) -> tuple[RunConfig, Sequence[str], bool]:
    """What was asked for when the sweep was begun, but for settings that may change. ``config``: None for all of it."""
    before = folder.read(grid=list[str], keep_predictions=bool)
    if config is None:
        return before
    others = {"`grid`": (before[1], list(grid)), "`keep_predictions`": (before[2], keep_predictions)}
    refuse_changes(before[0], config, others=others)
    return config, grid, keep_predictions


def _judged(points, learners: Sequence[Learner], data: _Data, out: Path, progress) -> SweepResult:
    """Judges all learners on the validation videos, and the best one on the test split."""
    batch_size = data.config.evaluation.batch_size
    judged = iter(_finite_evaluations(learners, data, progress))
    evaluations = [next(judged) if learner.problem is None else None for learner in learners]
    result = collect(points, learners, evaluations, out, data.config)
    best, source = result.best, data.source
    stored_clips = None if source.features is None else source.features.options.clips_per_video
    curve = [(step, loss, hits) for step, _, loss, hits in best.curve]
    outcome = outcome_of(
        learners[best.number].config, curve, source.samples["train"], best.evaluation.metrics, stored_clips,
        is_swept=True, selected=result.selected,
    )  # fmt: skip
    result = replace(result, outcome=outcome)
    if "test" not in source.samples:
        return result
    (test,) = judge(
        [learners[best.number].model], source, data.world, progress,
        split="test", phase="testing the chosen learner", batch_size=batch_size,
    )  # fmt: skip
    return replace(result, test=test)


def _finite_evaluations(learners: Sequence[Learner], data: _Data, progress: Report) -> list[Evaluation]:
    """Judges the living learners. Those whose scores are not finite are dropped first, with a warning, and the videos
    are read again. Raises NotFiniteError if none would be left."""
    while True:
        living = [learner for learner in learners if learner.problem is None]
        models = [learner.model for learner in living]
        try:
            return judge(models, data.source, data.world, progress, batch_size=data.config.evaluation.batch_size)
        except NotFiniteError as error:
            if len(error.models) == len(living):
                raise
            for number in error.models:
                living[number].problem = "its scores are not finite on the validation videos; lower training.lr"
                log.warning("dropped: %s (%s)", living[number].name, living[number].problem)


def _prepare(grid: Grid, world: World) -> tuple[_Data, list[Point]]:
    """(what all learners share, the points with absolute paths and a number of steps)."""
    # the settings used of this config are the same in all points, after its seed is replaced by the shared one
    shared = replace_settings(grid.points[0].config, training={"seed": grid.seed})
    store, missing = None, {}
    if shared.data.features is not None:
        shared, store = open_store(shared)
        names, samples = store.class_names, {name: split.samples for name, split in store.splits.items()}
    else:
        videos = find_splits(shared)
        shared, names, samples, missing = videos.config, videos.class_names, videos.splits, videos.missing
    if not samples.get("val"):
        raise ConfigError("a sweep chooses by validation videos, and there are none: give it a val split")
    selecting_metric(shared, names, samples["val"])
    steps = max(with_steps(point.config, len(samples["train"])).training.steps for point in grid.points)
    fixed = dict(data=shared.to_dict()["data"], training={"steps": steps})
    points = [Point(point.settings, replace_settings(point.config, **fixed)) for point in grid.points]
    shared = replace_settings(shared, training={"steps": steps})
    configs = [point.config for point in points]
    if store is None:
        encoder = _shared_backbone(configs, shared).to(world.device)
        first = build_classifier(configs[0], names, backbone=with_taps(encoder, taps_of(configs[0].model)))
        source = LiveStreams(shared, names, samples, encoder, first.card.preprocessing)
        if shared.training.compile:
            encoder.compile()
    else:
        for config in configs:
            encoder_for(config.model, store)  # raises if the store lacks a block
        spec = store.description.spec
        taps = _union([taps_of(config.model) for config in configs], spec.depth, spec.name)
        needs_maps = any(reads_maps(config.model) for config in configs)
        source = StoredStreams(shared, store, taps, world, needs_maps=needs_maps)
        encoder = source.unpacker.encoder
    make_sampler(shared.training, len(samples["train"]), 0, world)
    return _Data(shared, names, missing, source, encoder, world), points


def _shared_backbone(configs: Sequence[RunConfig], shared: RunConfig) -> FrozenBackbone:
    """A backbone that is tapped at every block that some learner reads."""
    wanted = [taps_of(config.model) for config in configs]
    torch.manual_seed(shared.training.seed)  # random weights are then those of a run

    def make(taps) -> FrozenBackbone:
        start = backbone_to_start(shared, taps)
        return start if start is not None else create_backbone(shared.backbone, taps)

    backbone = make(wanted[0])
    union = _union(wanted, backbone.spec.depth, backbone.spec.name)
    return backbone if backbone.taps == union else make(union)


def _union(wanted: Sequence, depth: int, name: str) -> tuple[int, ...]:
    return tuple(sorted({block for taps in wanted for block in tapped_blocks(taps, depth, name)}))


def _make_learner(point: Point, data: _Data) -> Learner:
    """A learner with the same initial values as a run of its config."""
    config, samples = point.config, data.source.samples
    own = with_taps(data.encoder, taps_of(config.model))
    described = describe_data(config, samples["train"], samples["val"])
    model = make_model(config, data.class_names, own, data.world.device, described)
    return Learner(point.name, config, model, data.encoder.taps)


def _save_learners(
    learners: Sequence[Learner], evaluations: Sequence[Evaluation | None], data: _Data, out: Path, predictions: bool
) -> tuple:
    """Writes a run folder for each learner that was not dropped. Returns the arguments that all of them share."""
    every = (data.source.samples, data.missing, data.source.features)
    for number, (learner, evaluation) in enumerate(zip(learners, evaluations, strict=True)):
        if learner.problem is None:
            with build_folder(out / "learners" / f"{number:03d}", replace=True) as own:
                save_learner(own, learner, evaluation, *every, predictions=predictions)
    return every


def _save_all(learners: Sequence[Learner], data: _Data, out: Path, result: SweepResult, keep_predictions: bool) -> None:
    evaluations = {learner.number: learner.evaluation for learner in result.ranked}
    every = _save_learners(learners, [evaluations[n] for n in range(len(learners))], data, out, keep_predictions)
    best = result.best.number
    with build_folder(out / "best", replace=True) as chosen:
        save_learner(chosen, learners[best], evaluations[best], *every, sweep=result, predictions=True)
    write_sweep(out, result)


def _refuse_full_disk(learners: Learners, out: Path) -> None:
    """Raises RunError if the disk has no room for the learners and their checkpoints."""
    there = nearest_existing(out)
    sizes = [
        sum(p.numel() * p.element_size() for p in learner.model.trainable_parameters()) for learner in learners.all
    ]
    # while training: two checkpoints, of weights and two moments of AdamW. At the end: a checkpoint, and every learner,
    # the chosen one twice
    needed = max(2 * 3 * sum(sizes), 3 * sum(sizes) + sum(sizes) + max(sizes))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RunError(
            f"{len(sizes)} learners take {needed / 1e9:.1f} GB with checkpoints, but {there} has {free / 1e9:.1f} GB "
            "free: choose another `out`, or fewer learners"
        )


def _announce(learners: Learners, data: _Data) -> None:
    models = [learner.model for learner in learners.all]
    count = sum(parameter.numel() for model in models for parameter in model.trainable_parameters())
    log.info(
        "%d learners on %s, %d classes, %s, %s trainable parameters in all, %s",
        len(models), data.config.backbone.name, len(data.class_names),
        describe_split(data.source.samples["train"], data.source.samples["val"]), f"{count:,}", data.world.device,
    )  # fmt: skip
