"""A run: trains a model by a config, evaluates it, and saves it in the folder of the run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from evl.backbones import FrozenBackbone
from evl.collections.material import announce_material
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.draw import describe_groups, describe_split
from evl.data.splits import (
    MOVED,
    NO_FILE,
    describe_gone,
    find_splits,
    gone_samples,
    moved_samples,
    old_root,
    stop_if_too_many,
    with_absolute_paths,
)
from evl.decoders import find_decoder
from evl.errors import ConfigError, DataError, RunError, StoreError
from evl.evaluation import Evaluation, write_evaluation
from evl.evaluation.evaluate import selecting_metric
from evl.evaluation.stored import encoder_for
from evl.models import Classifier
from evl.runtime.distributed import World, join_world
from evl.runtime.out_folder import Resume
from evl.runtime.precision import resolve_precision
from evl.runtime.progress import Report
from evl.saving import backbone_to_start, build_classifier, save_model, start_from
from evl.store.compatibility import changes
from evl.store.description import StoreDescription
from evl.store.store import FeatureStore
from evl.training.checkpoint import list_checkpoints
from evl.training.going_on import refuse_changes
from evl.training.keeper import RunKeeper
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.training.loop import Interrupted, fit, make_sampler
from evl.training.outcome import Outcome, outcome_of
from evl.training.pace import Pace, RunTime, log_run_time
from evl.training.run_folder import RunFolder
from evl.training.sources import LiveStreams, RunStreams, StoredStreams, judge, open_store, samples_of, with_videos_of
from evl.types import EncoderFacts, Sample

log = logging.getLogger("evl")


@dataclass(frozen=True)
class RunResult:
    """The result of ``train``."""

    model: Classifier  # after the last step, in evaluation mode
    evaluation: Evaluation | None  # None if there are no validation videos
    damaged: dict[str, str]  # training videos that could not be read, path → reason
    folder: Path  # of the run
    # videos that are listed but did not exist when the run began; empty for a resumed run
    missing: tuple[Sample, ...] = ()
    outcome: Outcome | None = None  # chance, training and validation score, and what to try next


def train(
    config: RunConfig | None,
    out: str | Path,
    *,
    resume: Resume = False,
    settings: tuple[str, ...] = (),
    device: str | None = None,
    progress: Report = lambda report: None,
    on_pace: Callable[[RunTime], None] = log_run_time,
) -> RunResult:
    """Trains a model by ``config`` in the folder ``out``. The arguments are those of ``evl.train``.

    ``config``: None with ``resume``, else None means the default config. ``on_pace`` is called once with the time that
    the run takes, after its first steps. Under torchrun all processes call it, and the first one writes. A run that
    fails before its first step leaves no folder. Raises errors of ``evl.errors``.
    """
    folder = RunFolder(out)
    with join_world(device) as world, ExitStack() as held:
        goes_on = world.from_main(lambda: held.enter_context(folder.held(resume)))
        if goes_on:
            data = _go_on(folder, config, settings)
        else:
            data = _begin((config or RunConfig()).with_settings(settings))
        config = data.config
        encoder = backbone_to_start(config) if data.store is None else encoder_for(config.model, data.store)
        model = make_model(
            config, data.class_names, encoder, world.device, describe_data(config, data.train, data.val),
            from_init=not (goes_on and list_checkpoints(folder.checkpoints)),
        )  # fmt: skip
        # everything that can raise for wrong settings comes before the folder is made
        selecting_metric(config, data.class_names, data.val)
        damaged = {sample.path: NO_FILE for sample in data.gone}
        stop_if_too_many(damaged, data.train, config)
        streams = _open_streams(data, model, world)
        stream = streams.training()
        make_sampler(config.training, len(data.train), 0, world)
        learners = Learners([Learner("the run", config, model, rank=world.rank)])
        world.only_main(lambda: _write_folder(folder, data, streams.features))
        if world.is_main:
            _announce(data, model, folder.path, world)
            progress = Pace(config, len(data.val), progress, on_pace)
        if config.training.compile:
            model.compile()
        judged = partial(judge, [model], streams, world, batch_size=config.evaluation.batch_size)
        keeper = RunKeeper(
            folder, config, stream, world, damaged, resume=goes_on, moved=data.moved, progress=progress,
            judge=(lambda progress: judged(progress, quick=True)[0]) if data.val else None,
        )  # fmt: skip
        try:
            fit(stream, learners, config.training, world, keeper, progress=progress)
        except BaseException as problem:
            if world.is_main and not goes_on:
                folder.remove_if_unused()
            if isinstance(problem, Interrupted):
                raise Interrupted(f"{problem}; a checkpoint is saved") from None
            raise
        evaluation, unjudged = None, None
        if data.val:
            try:
                evaluation = judged(progress)[0]
            except DataError as error:  # raised later, after the model is saved
                unjudged = error
        outcome = world.gather(_save(folder, data, model, evaluation, keeper.selected) if world.is_main else None)[0]
        if unjudged is not None:
            raise RunError(f"the model is trained and saved in {folder.path}, but it has no score: {unjudged}")
    absent = tuple(sample for group in data.missing.values() for sample in group)
    return RunResult(model.eval(), evaluation, damaged, folder.path, absent, outcome)


@dataclass(frozen=True)
class _RunData:
    """The data of a run."""

    config: RunConfig  # with absolute paths and a number of steps
    store: FeatureStore | None  # the features that are read instead of videos, or None
    class_names: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    # for each split, videos that are listed but do not exist. They are in neither train nor val
    missing: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    before: RunConfig | None = None  # the saved config of a resumed run; None for a new run
    gone: tuple[Sample, ...] = ()  # training videos of a resumed run that do not exist any more
    moved: dict[str, str] = field(default_factory=dict)  # old path → new path, for videos of a resumed run


def _begin(config: RunConfig) -> _RunData:
    """The data of a new run."""
    if config.model.decoder == "zero_shot":
        raise ConfigError(
            "model.decoder=zero_shot has nothing to train: judge it by evl evaluate, or start training "
            "from it by model.zero_shot_start=true"
        )
    if config.data.features is None:
        videos = find_splits(config, test=False)
        splits = videos.splits["train"], videos.splits["val"]
        data = _RunData(videos.config, None, videos.class_names, *splits, videos.missing)
    else:
        config, store = open_store(config)
        data = _RunData(config, store, *samples_of(store))
    return replace(data, config=with_steps(data.config, len(data.train)))


def _go_on(folder: RunFolder, asked: RunConfig | None, settings: tuple[str, ...]) -> _RunData:
    """What the run in ``folder`` reads: the videos or the features that it was begun with, where they lie now.

    ``asked``: a config that must be that of the run, but for settings that may change; None: the config of the run.
    """
    before, names, train, val = folder.read()
    if not train:
        raise RunError(
            f"{folder.path} was not trained here and lists no videos; start another run "
            f"from it, with `init={folder.path}`"
        )
    changed = (before if asked is None else _as_begun(asked, before, len(train))).with_settings(settings)
    config = _resumed(before, changed)
    if config.data.features is None:
        train, val, gone, moved = _find_again(before, config, train, val)
        return _RunData(config, None, names, train, val, before=before, gone=gone, moved=moved)
    if not Path(config.data.features).exists():
        raise StoreError(
            f"{config.data.features}: the store of features that this run reads does not exist; if it was moved, give "
            "its new path with `data.features=STORE`"
        )
    config, store = open_store(config)
    if (names, train, val) != samples_of(store):
        raise StoreError(f"{store.path} holds other videos than this run was begun with; start a new one from it")
    _refuse_other_features(folder, store)
    return _RunData(config, store, names, train, val, before=before)


def _find_again(
    before: RunConfig, config: RunConfig, train: tuple[Sample, ...], val: tuple[Sample, ...]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...], dict[str, str]]:
    """Finds the videos of a resumed run again -> (train, val, training videos that are gone, old path → new path).

    If ``config.data.root`` is another folder than ``before.data.root``, the videos are looked for in it. Raises
    DataError if all training videos or all validation videos are gone.
    """
    root, moved = old_root(before.data, (*train, *val)), {}
    if config.data.root != before.data.root and config.data.root is not None:
        now = config.data.root
        after = [moved_samples(samples, root, now) for samples in (train, val)]
        moved = {a.path: b.path for a, b in zip((*train, *val), (*after[0], *after[1]), strict=True)}
        (train, val), root = after, f"{root} (now {now})"
    gone = gone_samples({"train": train, "val": val}, root, how=MOVED)
    for name, some in gone.items():
        total = len(train if name == "train" else val)
        log.warning(describe_gone(len(some), total, name, some[0].path, root, MOVED))
    return train, val, gone.get("train", ()), moved


def make_model(
    config: RunConfig,
    class_names: Sequence[str],
    encoder: FrozenBackbone | EncoderFacts | None,
    device: torch.device,
    data: str,
    *,
    from_init: bool = True,
) -> Classifier:
    """The model to train, on ``device``. Its config decides its initial weights, so they are the same in all processes.

    ``encoder`` None: the one in ``config``. ``data``: a description for the card. ``from_init``: whether to load the
    weights of ``training.init``. A run with a checkpoint does not need them.
    """
    model = build_classifier(config, class_names, backbone=encoder, seed=config.training.seed)
    model.card = replace(model.card, precision=resolve_precision(config.training.precision, device), data=data)
    if config.training.init is not None and from_init:
        start_from(model, config.training.init)
    if config.data.features is not None:  # a run from a store has no backbone to save
        model.card = replace(model.card, with_backbone=False)
    return model.to(device)


def _open_streams(data: _RunData, model: Classifier, world: World) -> RunStreams:
    if data.store is not None:
        return StoredStreams(data.config, data.store, model.encoder.taps, world, needs_maps=model.reads_maps)
    samples = {"train": data.train, "val": data.val}
    return LiveStreams(data.config, data.class_names, samples, model.backbone, model.card.preprocessing)


def _write_folder(folder: RunFolder, data: _RunData, features: StoreDescription | None) -> None:
    """Makes the folder of a new run, or writes the new paths of a resumed run whose videos were moved."""
    if data.before is None:
        folder.create(data.config, data.class_names, data.train, data.val, data.missing, features)
    elif data.moved:
        now = replace_settings(data.before, data={"root": data.config.data.root})
        folder.write_moved(now, data.train, data.val)


def _save(
    folder: RunFolder, data: _RunData, model: Classifier, evaluation: Evaluation | None, best: str | None
) -> Outcome | None:
    """Writes the evaluation and the model, and returns the outcome. ``best``: which step is ``best/``, in words."""
    metrics = evaluation.metrics if evaluation is not None else None
    stored_clips = None if data.store is None else data.store.description.options.clips_per_video
    selected = None if best is None else f"best/ is {best}"
    outcome = outcome_of(data.config, folder.curve(), data.train, metrics, stored_clips, selected=selected)
    save_model(model, folder.path, scores=evaluation.to_dict() if evaluation else None)  # first: it cost the most
    if evaluation is not None:
        folder.log({"step": data.config.training.steps, "final": evaluation.to_dict()})
        write_evaluation(folder.path, evaluation, outcome=outcome and outcome.to_dict())
    return outcome


def _refuse_other_features(folder: RunFolder, store: FeatureStore) -> None:
    if differences := changes(folder.fingerprint(), store.description.fingerprint):
        raise StoreError(
            f"{store.path} holds other features than this run was begun with: {'; '.join(differences)}. Go on with the "
            "former store, or start a new run from this one in another folder"
        )


def describe_data(config: RunConfig, train: Sequence[Sample], val: Sequence[Sample]) -> str:
    """The data of a run in words, for the card of its model."""
    name = Path(config.data.path).name or config.data.path
    groups = describe_groups(train, val)
    return f"{name}, {len(train)} videos, {len(val)} for validation{f' ({groups})' if groups else ''}"


def with_steps(config: RunConfig, num_samples: int) -> RunConfig:
    """The config with a number of steps. If it has none: 30 epochs, but at least 200 steps.

    In an epoch each video is drawn once, or ``repeated_augmentation`` times.
    """
    if config.training.steps is not None:
        return config
    training = config.training
    epochs = math.ceil(30 * num_samples * training.repeated_augmentation / training.batch_size)
    return replace_settings(config, training={"steps": max(200, training.warmup + 1, epochs)})


def _as_begun(asked: RunConfig, before: RunConfig, num_samples: int) -> RunConfig:
    """``asked`` with what a run adds to its config: absolute paths, a number of steps, the videos of a store."""
    asked = with_steps(with_absolute_paths(asked), num_samples)
    if asked.data.features is not None and before.data.features is not None:
        return with_videos_of(before.data, asked)
    root = asked.data.root or before.data.root  # which a run that went on may have got
    return replace_settings(asked, data={"root": root})


def _resumed(stored: RunConfig, changed: RunConfig) -> RunConfig:
    """``changed``, the config of a run that was begun with ``stored``. Raises ConfigError if it cannot go on so."""
    if changed.data.root is not None:
        changed = replace_settings(changed, data={"root": str(Path(changed.data.root).absolute())})
    if (stored.data.features is None) != (changed.data.features is None):
        raise ConfigError(
            "a run that reads videos cannot go on with a store, nor the other way round: leave out data.features, or "
            "start a new run in another folder"
        )
    if changed.data.features is not None and stored.data.root != changed.data.root:
        raise ConfigError(
            "a run from a store opens no videos: leave out data.root; data.features is the path of the store"
        )
    refuse_changes(stored, changed)
    return changed


def _announce(data: _RunData, model: Classifier, folder: Path, world: World) -> None:
    count = sum(parameter.numel() for parameter in model.trainable_parameters())
    log.info(
        "%s with %s, %d classes, %s, %s trainable parameters, %s%s",
        data.config.backbone.name, find_decoder(data.config.model.decoder).phrase, len(model.class_names),
        describe_split(data.train, data.val), f"{count:,}", world.device, f" × {world.size}" if world.size > 1 else "",
    )  # fmt: skip
    if untrained := sorted(set(model.class_names) - {sample.label for sample in data.train}):
        log.warning("no training video has the class %s: it cannot be learned", ", ".join(map(repr, untrained[:5])))
    if not data.val:
        log.warning("no validation videos: nothing will be evaluated")
    if data.store is None:
        announce_material((*data.train, *data.val), data.config)
    if gone := [sample for group in data.missing.values() for sample in group]:
        log.warning(
            "%d listed videos are missing and left out, such as %s: all are in %s",
            len(gone), gone[0].path, folder / "missing.csv",
        )  # fmt: skip
