"""A whole run: from a config and a folder of videos to a trained, judged and saved model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evl.collections.material import announce_material
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.groups import describe_groups, describe_split
from evl.data.moved import NO_FILE, describe_gone, gone_samples, moved_samples, old_root
from evl.data.splits import find_splits, stop_if_too_many
from evl.errors import ConfigError, DataError, RunError, StoreError
from evl.evaluation import Evaluation, write_evaluation
from evl.evaluation.stored import encoder_for
from evl.models import Classifier
from evl.runtime.distributed import World, join_world
from evl.runtime.precision import resolve_precision
from evl.runtime.progress import Report
from evl.saving import backbone_to_start, build_classifier, save_model, start_from
from evl.store.compatibility import changes
from evl.store.store import FeatureStore
from evl.training.checkpoint import list_checkpoints
from evl.training.keeper import RunKeeper
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.training.loop import Interrupted, fit, make_sampler
from evl.training.outcome import Outcome, outcome_of
from evl.training.pace import Pace, RunTime, say
from evl.training.run_folder import RunFolder
from evl.training.sources import LiveStreams, StoredStreams, judge, open_store, samples_of
from evl.types import Sample

log = logging.getLogger("evl")
# what may change when a run goes on: nothing that decides its numbers
_RESUMABLE = {
    # where the store lies, what it holds is compared; where the videos lie
    "data": {"num_workers", "max_damaged_share", "features", "root"},
    "training": {"save_every", "keep_last", "log_every"},
}


@dataclass(frozen=True)
class RunResult:
    """``evaluation`` is None if there were no validation videos; ``damaged``: training videos, path → reason;
    ``missing``: listed videos that were not there, left out from the start (none where a run went on);
    ``outcome``: chance, training and validation score, and what to try next."""

    model: Classifier
    evaluation: Evaluation | None
    damaged: dict[str, str]
    folder: Path
    missing: tuple[Sample, ...] = ()
    outcome: Outcome | None = None


def train(
    config: RunConfig | None,
    out: str | Path,
    *,
    resume: bool = False,
    settings: tuple[str, ...] = (),
    device: str | None = None,
    progress: Report = lambda report: None,
    on_pace: Callable[[RunTime], None] = say,
) -> RunResult:
    """Runs ``config`` in the folder ``out``, or goes on with the run there (``resume``; config None).

    Under torchrun all processes call it; the first one writes. Raises errors of ``evl.errors``. A run that ends in an
    error before its first step is done leaves no folder. ``on_pace`` is called with how long the run takes, once its
    first steps are measured; the default logs it.
    """
    folder = RunFolder(out)
    with join_world(device) as world:
        if resume:
            if not folder.exists:
                raise RunError(f"{out}: no run to resume here (no config.yaml)")
            stored, names, train_samples, val_samples = folder.read()
            if not train_samples:
                raise RunError(
                    f"{out} was not trained here and lists no videos; start from it with: evl train --init {out} …"
                )
            config = _resumed(stored, settings)
            found = _find_again(stored, config, train_samples, val_samples)
            listed = names, found.train, found.val
        else:
            config, listed, found = (config or RunConfig()).with_settings(settings), None, _FoundAgain()
        config, store, names, train_samples, val_samples, missing = _open_data(config, listed)
        if resume and store is not None:
            _refuse_other_features(folder, store)
        if not resume:
            config = with_steps(config, len(train_samples))
        if config.model.decoder == "zero_shot":
            raise ConfigError(
                "model.decoder=zero_shot has nothing to train: judge it by evl evaluate --zero-shot, or start training "
                "from it by model.zero_shot_start=true"
            )
        backbone = backbone_to_start(config) if store is None else encoder_for(config.model, store)
        # the same initial weights in all processes
        model = build_classifier(config, names, backbone=backbone, seed=config.training.seed)
        precision = resolve_precision(config.training.precision, world.device)
        model.card = replace(model.card, precision=precision, data=describe_data(config, train_samples, val_samples))
        # a run that was stopped before its first checkpoint starts from there again
        if config.training.init is not None and not (resume and list_checkpoints(folder.checkpoints)):
            start_from(model, config.training.init)
        if store is not None:  # the start's backbone may have been inside; here there is none to be saved
            model.card = replace(model.card, with_backbone=False)
        model.to(world.device)
        # whatever can be refused is refused before there is a folder
        damaged = {sample.path: NO_FILE for sample in found.gone}
        stop_if_too_many(damaged, train_samples, config)
        if store is None:
            samples = {"train": train_samples, "val": val_samples}
            source = LiveStreams(config, names, samples, model.backbone, model.card.preprocessing)
        else:
            source = StoredStreams(config, store, model.encoder.taps, world, needs_maps=model.reads_maps)
        stream = source.training()
        make_sampler(config.training, len(train_samples), 0, world)
        if not resume:
            features = source.features
            world.only_main(lambda: folder.create(config, names, train_samples, val_samples, missing, features))
        elif found.moved:
            now = replace_settings(stored, data={"root": config.data.root})
            world.only_main(lambda: folder.write_moved(now, train_samples, val_samples))
        if world.is_main:
            _announce(config, model, train_samples, val_samples, world)
            if store is None:
                announce_material((*train_samples, *val_samples), config)
            if missing:
                _announce_missing(missing, folder.path)
        if config.training.compile:
            model.compile()

        def judged(progress: Report, *, quick: bool) -> Evaluation:
            how = dict(quick=quick, batch_size=config.evaluation.batch_size)
            return judge([model], source, world, progress, **how)[0]

        if world.is_main:
            progress = Pace(config, len(val_samples), progress, on_pace)
        keeper = RunKeeper(
            folder, config, stream, world, damaged, resume=resume, moved=found.moved, progress=progress,
            judge=(lambda progress: judged(progress, quick=True)) if val_samples else None,
        )  # fmt: skip
        learners = Learners([Learner("the run", config, model, rank=world.rank)])
        try:
            fit(stream, learners, config.training, world, keeper, progress=progress)
        except BaseException as problem:
            if world.is_main and not resume:
                folder.remove_if_unused()
            if isinstance(problem, Interrupted):
                raise Interrupted(f"{problem}; a checkpoint is saved") from None
            raise
        finally:
            keeper.close()
        evaluation, outcome, unjudged = None, None, None
        if val_samples:
            try:
                evaluation = judged(progress, quick=False)
            except DataError as error:  # what was trained is saved first
                unjudged = error
        if world.is_main:
            metrics = evaluation.metrics if evaluation is not None else None
            stored_clips = None if store is None else store.description.options.clips_per_video
            outcome = outcome_of(config, folder.curve(), train_samples, metrics, stored_clips)
            if evaluation is not None:
                write_evaluation(folder.path, evaluation, outcome=outcome and outcome.to_dict())
                folder.log({"step": config.training.steps, "final": evaluation.to_dict()})
            save_model(model, folder.path, scores=evaluation.to_dict() if evaluation else None)
        outcome = world.gather(outcome)[0]
        if unjudged is not None:
            raise RunError(f"the model is trained and saved in {folder.path}, but it has no score: {unjudged}")
    absent = tuple(sample for group in missing.values() for sample in group)
    return RunResult(model.eval(), evaluation, damaged, folder.path, absent, outcome)


@dataclass(frozen=True)
class _FoundAgain:
    """Videos of a run that goes on, where they lie now. ``moved``: old path → new one; ``gone``: training videos that
    are not there."""

    train: tuple[Sample, ...] = ()
    val: tuple[Sample, ...] = ()
    gone: tuple[Sample, ...] = ()
    moved: dict[str, str] = field(default_factory=dict)


def _find_again(
    stored: RunConfig, config: RunConfig, train: tuple[Sample, ...], val: tuple[Sample, ...]
) -> _FoundAgain:
    """The listed videos below ``config.data.root``, if that is another one than the stored config's. A run lists what
    was there when it started; some may have gone since. Raises DataError where all of either part are gone."""
    if config.data.features is not None:
        return _FoundAgain(train, val)
    root, moved = old_root(stored.data, (*train, *val)), {}
    if config.data.root != stored.data.root and config.data.root is not None:
        now = config.data.root
        found = [moved_samples(samples, root, now) for samples in (train, val)]
        moved = {a.path: b.path for a, b in zip((*train, *val), (*found[0], *found[1]), strict=True)}
        (train, val), root = found, f"{root} (now {now})"
    gone = gone_samples({"train": train, "val": val}, root, option="--resume --set data.root")
    for name, some in gone.items():
        total = len(train if name == "train" else val)
        log.warning(describe_gone(len(some), total, name, some[0].path, root, "--resume --set data.root"))
    return _FoundAgain(train, val, gone.get("train", ()), moved)


def _open_data(config: RunConfig, listed: tuple | None):
    """(config with absolute paths, the store if there is one, class names, training samples, validation samples,
    missing samples by split). ``listed``: names and samples of a run that goes on."""
    if config.data.features is None:
        if listed is not None:
            return config, None, *listed, {}
        found = find_splits(config, test=False)
        return found.config, None, found.class_names, found.splits["train"], found.splits["val"], found.missing
    if listed is not None and not Path(config.data.features).exists():
        raise StoreError(
            f"{config.data.features}: the store of features that this run reads is not there; if it was moved, say "
            "where it is with --set data.features=STORE"
        )
    config, store = open_store(config)
    found = samples_of(store)
    if listed is not None and listed != found:
        raise StoreError(f"{store.path} holds other videos than this run was begun with; start a new one from it")
    return config, store, *found, {}


def _refuse_other_features(folder: RunFolder, store: FeatureStore) -> None:
    if found := changes(folder.fingerprint(), store.description.fingerprint):
        raise StoreError(
            f"{store.path} holds other features than this run was begun with: {'; '.join(found)}. Go on with the store "
            "of then, or start a new run from this one in another folder"
        )


def describe_data(config: RunConfig, train: Sequence[Sample], val: Sequence[Sample]) -> str:
    """For the card of a model."""
    name = Path(config.data.path).name or config.data.path
    groups = describe_groups(train, val)
    return f"{name}, {len(train)} videos, {len(val)} for validation{f' ({groups})' if groups else ''}"


def with_steps(config: RunConfig, num_samples: int) -> RunConfig:
    """The config with a number of steps: 30 epochs, but at least 200 steps, unless it has one."""
    if config.training.steps is not None:
        return config
    epochs = math.ceil(30 * num_samples / config.training.batch_size)
    return replace_settings(config, training={"steps": max(200, config.training.warmup_steps + 1, epochs)})


def _resumed(stored: RunConfig, settings: tuple[str, ...]) -> RunConfig:
    changed = stored.with_settings(settings)
    if changed.data.root is not None:
        changed = replace_settings(changed, data={"root": str(Path(changed.data.root).absolute())})
    before, after = stored.to_dict(), changed.to_dict()
    if (stored.data.features is None) != (changed.data.features is None):
        raise ConfigError(
            "a run that reads videos cannot go on with a store, nor the other way round: leave out data.features, or "
            "start a new run in another folder"
        )
    if changed.data.features is not None and stored.data.root != changed.data.root:
        raise ConfigError(
            "a run from a store opens no videos: leave out data.root; data.features says where the store is"
        )
    for section, fields in after.items():
        for name, value in fields.items():
            if value != before[section][name] and name not in _RESUMABLE.get(section, ()):
                raise ConfigError(
                    f"{section}.{name} cannot change when a run goes on ({before[section][name]!r} → {value!r}); "
                    "start a new run in another folder"
                )
    return changed


def _announce(config: RunConfig, model: Classifier, training, validation, world: World) -> None:
    count = sum(parameter.numel() for parameter in model.trainable_parameters())
    log.info(
        "%s, %d classes, %s, %s trainable parameters, %s%s",
        config.backbone.name, len(model.class_names), describe_split(training, validation), f"{count:,}", world.device,
        f" × {world.size}" if world.size > 1 else "",
    )  # fmt: skip
    if untrained := sorted(set(model.class_names) - {sample.label for sample in training}):
        log.warning("no training video has the class %s: it cannot be learned", ", ".join(map(repr, untrained[:5])))
    if not validation:
        log.warning("no validation videos: nothing will be evaluated")


def _announce_missing(missing: dict[str, tuple[Sample, ...]], folder: Path) -> None:
    gone = [sample for group in missing.values() for sample in group]
    log.warning(
        "%d listed videos are missing and left out, such as %s: all are in %s",
        len(gone), gone[0].path, folder / "missing.csv",
    )  # fmt: skip
