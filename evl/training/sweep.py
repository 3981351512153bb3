"""A sweep: many heads from one pass over the data, judged together, one of them chosen."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from evl.assembly import backbone_to_start, build_classifier, start_from
from evl.assembly.build import taps_of
from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.base import tapped_blocks
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.dataset import Batch
from evl.data.groups import describe_split
from evl.data.material import announce_material
from evl.data.splits import find_splits, make_files, stop_if_too_many
from evl.distributed import World, autocast, join_world, resolve_precision
from evl.errors import ConfigError, DataError, RunError
from evl.evaluation import Evaluation, evaluate_heads
from evl.evaluation.evaluate import evaluate_together
from evl.evaluation.stored import backbone_for, stored_backbone
from evl.files import expand_home
from evl.training.grid import Grid, Point, expand
from evl.training.heads import Features, Head, Heads, HeadView, with_taps
from evl.training.loop import Interrupted, Progress, listening_for_stop
from evl.training.outcome import Outcome, outcome_of
from evl.training.run import describe_data, with_steps
from evl.training.sources import Source, StoredFeatures, Videos, make_sampler, open_store, samples_of
from evl.training.sweep_results import SweepResult, collect, save_head, write_sweep
from evl.types import Sample
from evl.video.torchcodec import require as require_decoder

log = logging.getLogger("evl")


@dataclass(frozen=True)
class _Data:
    """What all heads share. ``samples``: by split, with ``test`` where there is one."""

    config: RunConfig
    class_names: tuple[str, ...]
    samples: dict[str, tuple[Sample, ...]]
    missing: dict[str, tuple[Sample, ...]]
    backbone: FrozenBackbone
    source: Source
    world: World
    damaged: dict[str, str]


def sweep(
    config: RunConfig,
    grid: Sequence[str],
    out: str | Path,
    *,
    device: str | None = None,
    progress: Callable[[Progress], None] = lambda report: None,
    together: int | None = None,
    keep_predictions: bool = False,
) -> SweepResult:
    """Trains a head for every point of ``grid`` (``evl.training.grid.expand``) on ``config``'s store or videos, judges
    all on the validation videos, and chooses one.

    ``out`` gets a run folder for each head (``heads/000`` …), ``best``, ``sweep.json``, ``sweep.csv``, ``sweep.png``.
    Predictions are written of the chosen head; with ``keep_predictions`` of all heads.
    The chosen head alone is judged on the test split, once, if there is one. After Ctrl-C heads are saved as they are,
    and Interrupted is raised; a sweep cannot be resumed. ``together``: see ``Heads``. Raises errors of ``evl.errors``.
    """
    out = expand_home(Path(out))
    wanted = expand(config, grid)  # what can be refused is refused before anything is read
    _refuse_used(out)
    with join_world(device) as world:
        if world.size > 1:
            raise ConfigError(
                "a sweep runs in one process: leave torchrun out, or start several sweeps with parts of the grid"
            )
        data, points = _prepare(wanted, world)
        heads = Heads([_make_head(point, data) for point in points], together=together)
        _announce(heads, data)
        if data.config.data.features is None:
            announce_material((*data.samples["train"], *data.samples["val"]), data.config)
        _refuse_full_disk(heads, out)
        started = time.perf_counter()
        try:
            done = _train(heads, data, progress)
            if not heads.living:
                problem = heads.heads[0].problem
                raise RunError(f"all {len(points)} heads were dropped, such as {points[0].name}: {problem}")
            trained = time.perf_counter()
            found = iter(_judge(heads, heads.living, "val", data, progress))
            evaluations = [next(found) if head.problem is None else None for head in heads.heads]
            result = collect(points, heads.heads, evaluations, out, data.config)
            test, outcome = None, _outcome(heads, result, data)
            if "test" in data.samples:
                test = _judge(heads, [heads.heads[result.best.number]], "test", data, progress)[0]
        except DataError as error:  # there is nothing to judge by
            _save_all(heads, [None] * len(points), data, out, keep_predictions)
            raise RunError(f"the heads are trained, and in {out / 'heads'}, but none was chosen: {error}") from None
        except KeyboardInterrupt as stop:
            _save_all(heads, [None] * len(points), data, out, keep_predictions)
            where = str(stop) or "stopped while judging"
            raise Interrupted(f"{where}; the heads as they are now are in {out / 'heads'}") from None
        result = replace(
            result, test=test, outcome=outcome, damaged=data.damaged, steps=done, training_seconds=trained - started,
            judging_seconds=time.perf_counter() - trained,
        )  # fmt: skip
        _save_all(heads, evaluations, data, out, keep_predictions, result)
    return result


def _prepare(grid: Grid, world: World) -> tuple[_Data, list[Point]]:
    """Data, backbone and source; and the points, with absolute paths and a number of steps."""
    # all points are alike in what is read of this one, once its seed is the shared one
    shared = replace_settings(grid.points[0].config, training={"seed": grid.seed})
    store, missing = None, {}
    if shared.data.features is not None:
        shared, store = open_store(shared)
        names, train, val = samples_of(store)
        samples = {"train": train, "val": val}
        if "test" in store.splits:
            samples["test"] = store.splits["test"].samples
    else:
        found = find_splits(shared)
        shared, names, samples, missing = found.config, found.class_names, found.splits, found.missing
    if not samples["val"]:
        raise ConfigError("a sweep chooses by validation videos, and there are none: give it a val split")
    steps = max(with_steps(point.config, len(samples["train"])).training.steps for point in grid.points)
    fixed = dict(data=shared.to_dict()["data"], training={"steps": steps})
    points = [Point(point.settings, replace_settings(point.config, **fixed)) for point in grid.points]
    shared = replace_settings(shared, training={"steps": steps})
    backbone = _shared_backbone([point.config for point in points], shared, store)
    if store is None:
        preprocessing = _build(points[0].config, names, backbone).card.preprocessing
        source = Videos(shared, names, preprocessing, samples["train"], samples["val"], world)
        require_decoder(shared.data.decoder)
    else:
        source = StoredFeatures(shared, store, backbone.taps, world)
    make_sampler(shared, len(samples["train"]), 0, world)
    if shared.training.compile and store is None:
        backbone.compile()
    return _Data(shared, names, samples, missing, backbone.to(world.device), source, world, {}), points


def _shared_backbone(configs: Sequence[RunConfig], shared: RunConfig, store) -> FrozenBackbone:
    """Tapped at every block that any head reads."""
    wanted = [taps_of(config.model) for config in configs]
    if store is not None:
        depth, name = store.description.spec.depth, store.description.spec.name
        for config in configs:
            backbone_for(config.model, store)  # refuses what it has not got
        backbone = stored_backbone(store, _union(wanted, depth, name))
        backbone.needs_maps = any(config.model.decoder == "evl" and config.model.cross_frame for config in configs)
        return backbone
    torch.manual_seed(shared.training.seed)  # as a run does, of random weights

    def make(taps) -> FrozenBackbone:
        model = {"decoder": "evl", "taps": f"last {taps}" if isinstance(taps, int) else taps}
        start = backbone_to_start(replace_settings(shared, model={**_PLAIN, **model}))
        return start if start is not None else create_backbone(shared.backbone, taps)

    backbone = make(wanted[0])
    union = _union(wanted, backbone.spec.depth, backbone.spec.name)
    return backbone if backbone.taps == union else make(union)


_PLAIN = {"probe_blocks": None, "probe_positions": None, "num_queries": 1, "zero_shot_start": False}


def _union(wanted: Sequence, depth: int, name: str) -> tuple[int, ...]:
    return tuple(sorted({block for taps in wanted for block in tapped_blocks(taps, depth, name)}))


def _build(config: RunConfig, names: Sequence[str], backbone: FrozenBackbone):
    own = with_taps(backbone, taps_of(config.model))
    return build_classifier(config, names, backbone=own, seed=config.training.seed)


def _make_head(point: Point, data: _Data) -> Head:
    """With the initial values that a run of its config starts from."""
    config, training = point.config, point.config.training
    model = _build(config, data.class_names, data.backbone)
    described = describe_data(config, data.samples["train"], data.samples["val"])
    precision = resolve_precision(training.precision, data.world.device)
    model.card = replace(model.card, precision=precision, data=described)
    if training.init is not None:
        start_from(model, training.init)
    if isinstance(data.source, StoredFeatures):
        model.card = replace(model.card, with_backbone=False)
    return Head(point.name, config, model.to(data.world.device), data.backbone.taps)


def _train(heads: Heads, data: _Data, progress: Callable[[Progress], None]) -> int:
    """The number of steps done: all, or as many as there were heads left to take them."""
    config, source, training = data.config, data.source, data.config.training
    batches = source.read_batches(0)
    heads.train()
    clips, waited, since, note = 0, 0.0, time.perf_counter(), ""
    seen = 0
    with listening_for_stop() as stop_requested:
        for step in range(training.steps):
            before = time.perf_counter()
            micro = list(islice(batches, training.accumulation))
            waited += time.perf_counter() - before
            living = len(heads.living)
            heads.learn(step, _features(micro, data))
            clips += sum(len(batch.labels) for batch in micro)
            seen += sum(len(batch.labels) for batch in micro)
            new = {source.train_samples[i].path: why for batch in micro for i, why in batch.damaged.items()}
            data.damaged.update(new)
            if new:
                stop_if_too_many(data.damaged, source.train_samples, config)
            done = step + 1
            for head in heads.heads if len(heads.living) < living else ():
                if head.problem is not None:
                    log.warning("dropped: %s (%s)", head.name, head.problem)
            if not heads.living:
                return done
            if done % training.log_every == 0 or done == training.steps:
                passed = time.perf_counter() - since
                best = min(head.curve[-1][2] for head in heads.living)
                note = f"{len(heads.living)} heads  best loss {best:.3f}  {clips / passed:.1f} clips/s  "
                note += f"waiting for data {100 * waited / passed:.0f} %"
                clips, waited, since = 0, 0.0, time.perf_counter()
            progress(Progress("training", done, training.steps, note))
            if stop_requested() and done < training.steps:
                raise Interrupted(f"stopped at step {done}")
    if not seen:
        path, reason = next(iter(data.damaged.items()))
        raise RunError(f"not one clip could be read in {training.steps} steps, such as of {path}: {reason}")
    return training.steps


def _features(micro: Sequence[Batch], data: _Data) -> Iterator[tuple[Features | None, Tensor]]:
    """One batch of features in memory at a time."""
    for batch in micro:
        if not len(batch.labels):
            yield None, batch.labels
            continue
        with torch.no_grad(), autocast(data.config.training.precision, data.world.device):
            features = data.backbone(data.source.clips(batch))
        yield features, batch.labels
        del features


def _judge(
    heads: Heads, chosen: Sequence[Head], split: str, data: _Data, progress: Callable[[Progress], None]
) -> list[Evaluation]:
    """Heads on a split's videos, each video looked at once for all of them."""
    total, done = len(data.samples[split]), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(Progress("evaluating" if split == "val" else "testing the chosen one", done, total))

    views = [HeadView(heads, head, data.backbone) for head in chosen]
    options = dict(
        precision=data.config.training.precision, world=data.world, batch_size=data.config.evaluation.batch_size,
        trained_on=data.samples["train"], progress=count,
    )  # fmt: skip
    if isinstance(data.source, StoredFeatures):
        return evaluate_heads(views, data.source.store, split, **options)
    samples = data.samples[split]
    files = data.source.val_files if split == "val" else make_files(samples, data.config)
    return evaluate_together(views, samples, files=files, num_workers=data.source.num_workers, **options)


def _outcome(heads: Heads, result: SweepResult, data: _Data) -> Outcome | None:
    """Of the chosen head."""
    config, best = heads.heads[result.best.number].config, result.best
    stored_clips = None
    if isinstance(data.source, StoredFeatures):
        stored_clips = data.source.store.description.options.clips_per_video
    curve = [(step, loss, hits) for step, _, loss, hits in best.curve]
    metrics = best.evaluation.metrics
    return outcome_of(config, curve, data.samples["train"], metrics, stored_clips, is_swept=True)


def _save_all(
    heads: Heads,
    evaluations: Sequence[Evaluation | None],
    data: _Data,
    out: Path,
    keep_predictions: bool,
    result: SweepResult | None = None,
) -> None:
    heads.release()
    features = data.source.store.description if isinstance(data.source, StoredFeatures) else None
    every = (data.samples, data.missing, features)
    for number, (head, evaluation) in enumerate(zip(heads.heads, evaluations, strict=True)):
        if head.problem is None:
            save_head(out / "heads" / f"{number:03d}", head, evaluation, *every, predictions=keep_predictions)
    if result is None:
        return
    best = heads.heads[result.best.number]
    save_head(out / "best", best, evaluations[result.best.number], *every, sweep=result, predictions=True)
    write_sweep(out, result)


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is there already and not empty; a sweep cannot be resumed: choose another --out")


def _refuse_full_disk(heads: Heads, out: Path) -> None:
    """RunError before anything is trained, not after, where heads would not fit."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    sizes = [sum(p.numel() * p.element_size() for p in head.model.trainable_parameters()) for head in heads.heads]
    needed, free = sum(sizes) + max(sizes), shutil.disk_usage(there).free  # the chosen one is saved twice
    if needed > free:
        raise RunError(
            f"{len(sizes)} heads take {needed / 1e9:.1f} GB, but {there} has {free / 1e9:.1f} GB free: choose another "
            "--out, or fewer heads"
        )


def _announce(heads: Heads, data: _Data) -> None:
    models = [head.model for head in heads.heads]
    count = sum(parameter.numel() for model in models for parameter in model.trainable_parameters())
    log.info(
        "%d heads on %s, %d classes, %s, %s trainable parameters in all, %s",
        len(models), data.config.backbone.name, len(data.class_names),
        describe_split(data.samples["train"], data.samples["val"]), f"{count:,}", data.world.device,
    )  # fmt: skip
