"""A model, or the run of one, against labelled videos or a store."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from evl.api.models import open_model, refuse_beside_store, refuse_unknown, store_in, workers_for
from evl.config import RunConfig
from evl.data.dataset import Files
from evl.data.draw import with_groups
from evl.data.manifests import Manifest
from evl.data.manifests.manifest import Videos, labeled_videos_at, read_manifest, videos_at
from evl.data.splits import announce_notices, describe_gone, gone_samples, moved_samples, old_root
from evl.errors import ConfigError, DataError, StoreError
from evl.evaluation import Evaluation, evaluate_views, held_for_scores, views_of_store, write_evaluation
from evl.evaluation.evaluate import labels_of
from evl.inference.predictor import Predictions, predict_videos, views_for
from evl.inference.reading import device_of
from evl.runtime.distributed import join_world
from evl.runtime.files import expand_home
from evl.runtime.progress import Report, counting, showing
from evl.saving import VideoClassifier
from evl.store.store import FeatureStore
from evl.training.run_folder import RunFolder
from evl.types import Sample

log = logging.getLogger("evl")
AnyPath = str | os.PathLike


def evaluate(
    model: VideoClassifier | AnyPath,
    data: AnyPath | Manifest | FeatureStore | Iterable[Sample | AnyPath] | None = None,
    *,
    split: str | None = None,
    root: AnyPath | None = None,
    layout: str = "auto",
    split_number: int = 1,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    precision: str | None = None,
    files: Files | None = None,
    metrics: Sequence[str] | None = None,
    trained_on: Sequence[Sample] | None = None,
    out: AnyPath | None = None,
    device: str | None = None,
    progress: bool | Report = True,
    **sizes,
) -> Evaluation:
    """Judges a model on labelled videos, each by all of its views: ``.top1``, ``.metrics``, ``.predictions``.

        evl.evaluate("runs/mine").top1
        evl.evaluate(model, "videos/").metrics.confusion

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``.
        data: a folder, data set or list of videos; samples, or files in folders of their classes; or a store of
            features. None: the run's own videos.
        split: the split of ``data``; None: test, else val, all, train; of a run's own videos val.
        root, layout, split_number: as for ``evl.read_manifest``.
        num_clips, num_crops, batch_size, precision: None for the model's own; a store has its own views.
        num_workers: processes that read videos; None: one a core, but 0 for a few videos.
        metrics: your own, ``["my_module:my_metric"]``, besides evl's; None: those that the model was trained with.
        trained_on: samples; None: the run's training videos. The protocol says whether groups are shared with them.
        out: where predictions, scores and pictures are written; None: nowhere.
        device: None: the model's own, for a run CUDA if there is one.
        progress: as for ``evl.train``.

    Damaged videos are in ``.damaged`` and part of no score. Under torchrun all processes share the work and get the
    whole result. Raises DataError where a label is none of the model's class names, no video could be read, or a metric
    fails; ConfigError for a metric that cannot be imported.
    """
    refuse_unknown(sizes)
    run = run_of(model)
    wanted = device or (str(device_of(model)) if isinstance(model, VideoClassifier) else None)
    out = None if out is None else expand_home(Path(out))
    with join_world(wanted) as world, showing(progress) as report, ExitStack() as held:
        world.only_main(lambda: held.enter_context(held_for_scores(out)))
        store = store_in(data)
        if store is not None:
            of_videos = {"layout": None if layout == "auto" else layout, "split_number": split_number - 1 or None}
            views = dict(num_clips=num_clips, num_crops=num_crops, num_workers=num_workers, files=files)
            refuse_beside_store(root=root, **of_videos, **views, **sizes)
        model = open_model(model, str(world.device), sizes, store)
        if trained_on is None:
            trained_on = run.samples("train") if run is not None and run.exists else ()
        if store is not None:
            split = _stored_split(store, split)
            samples = store.splits[split].samples
        else:
            samples = judged_samples(run, data, split, root=root, layout=layout, split_number=split_number)
        if data is not None and world.is_main:
            warn_if_trained_on(trained_on, samples)
        count = counting(report, "evaluating", len(range(world.rank, len(samples), world.size)))
        how = dict(batch_size=batch_size, world=world, progress=count, trained_on=trained_on, metrics=metrics)
        if store is not None:
            stream = views_of_store(model, store, split, precision=precision)
        else:
            workers, labels = workers_for(len(samples), num_workers), labels_of(samples, model.class_names)
            views = dict(num_clips=num_clips, num_crops=num_crops, precision=precision, files=files)
            stream = views_for(model, samples, labels, num_workers=workers, **views)
        (result,) = evaluate_views([model], stream, **how)
        if out is not None and world.is_main:
            write_evaluation(out, result)
    return result


def predict(
    model: VideoClassifier | AnyPath,
    paths: Videos,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    wait_seconds: float | None = None,
    device: str | None = None,
    progress: bool | Report = True,
    **sizes,
) -> Predictions:
    """Scores of videos without labels; those that cannot be used are in ``.damaged``.

        for one in evl.predict("runs/mine", ["a.mp4", "folder/", "list.csv"]).predictions: print(one.class_name)

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``.
        paths: one or several files, folders (all videos in them), manifests (every row, a file or a part of one), and
            samples.
        num_clips, num_crops, batch_size: None for the model's own.
        num_workers: processes that read videos; None: one a core, but 0 for a few videos.
        wait_seconds: wait for files that are still being written, at most so long; None: do not wait.
        device: None: the model's own, for a run CUDA if there is one.
        progress: as for ``evl.train``.

    Raises PathTypeError for what is no path, DataError for a folder or manifest without videos.
    """
    samples = videos_at(paths)
    model = open_model(model, device, sizes)
    how = dict(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size, wait_seconds=wait_seconds)
    with showing(progress) as report:
        count = counting(report, "predicting", len(samples))
        return predict_videos(model, samples, num_workers=workers_for(len(samples), num_workers), progress=count, **how)


def run_of(model: VideoClassifier | AnyPath) -> RunFolder | None:
    """The folder that a model was trained in, as far as it is known."""
    if not isinstance(model, VideoClassifier):
        return RunFolder(model)
    return None if model.folder is None else RunFolder(model.folder)


def judged_samples(run: RunFolder | None, data, split: str | None, **options) -> tuple[Sample, ...]:
    if data is None:
        return own_samples(run, split or "val", options["root"])
    if not isinstance(data, str | os.PathLike | Manifest):
        return labeled_videos_at(data)
    manifest = data if isinstance(data, Manifest) else read_manifest(data, **options)
    manifest.require_videos()
    announce_notices(manifest)
    samples = manifest.splits[choose_split(manifest, split)]
    if run is None or not run.exists or isinstance(data, Manifest):
        return samples
    group_by = RunConfig.from_yaml(run.path / "config.yaml").data.group_by
    try:  # groups made as the run made its own, where all of them can be
        return with_groups(samples, group_by, data, options["root"])
    except DataError:  # it has groups of its own, or names of another kind
        return samples


def choose_split(manifest: Manifest, split: str | None) -> str:
    """``split``, or the one to judge by: test, else val, all, train. Raises DataError for one that is not there."""
    if split is not None and split not in manifest.splits:
        raise DataError(f"{manifest.source} has no split {split!r}, only {', '.join(manifest.splits)}")
    return split or next(name for name in ("test", "val", "all", "train") if name in manifest.splits)


def own_samples(run: RunFolder | None, split: str, root: AnyPath | None) -> tuple[Sample, ...]:
    """A split of the run itself, where its videos lie now."""
    if run is None:
        raise ConfigError("this model is of no run, so it has no videos of its own: give `data`")
    samples = run.samples(split) if run.exists else ()
    if not samples:
        raise DataError(f"{run.path} has no videos of its own of the split {split}; give `data`")
    config = RunConfig.from_yaml(run.path / "config.yaml")
    before = old_root(config.data, [*run.samples("train"), *run.samples("val")])
    if root is not None:
        samples, before = moved_samples(samples, before, str(Path(root).absolute())), f"{before} (now {root})"
    if gone := gone_samples({split: samples}, before, how="`root=FOLDER`").get(split):
        log.warning(describe_gone(len(gone), len(samples), split, gone[0].path, before, "`root=FOLDER`"))
    return samples


def _stored_split(store: FeatureStore, split: str | None) -> str:
    """The split of the store that is asked for, if it has views."""
    judged = [name for name in store.splits if name != "train"]  # which has training clips, no views
    chosen = split or next((name for name in ("test", "val") if name in judged), "val")
    if chosen not in judged:
        raise StoreError(
            f"{store.path} has no views of a split {chosen!r} to judge a model by, only of: {', '.join(judged) or '-'}"
        )
    return chosen


def warn_if_trained_on(trained_on: Sequence[Sample], samples: Sequence[Sample]) -> None:
    trained = {os.path.realpath(sample.path) for sample in trained_on}
    if seen := sum(isinstance(one, Sample) and os.path.realpath(one.path) in trained for one in samples):
        which = f"{seen} of these {len(samples)} videos were"
        if seen == len(samples):
            which = "this video was" if seen == 1 else f"all these {seen} videos were"
        log.warning("%s trained on: no score of unseen videos", which)
