"""evl evaluate"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import (
    Backbone,
    FramesPerSecond,
    ImageSize,
    NumFrames,
    Prompts,
    Stride,
    Weights,
    refuse_sizes_of_a_run,
    sizes,
)

NAME = "evaluate"


def command(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Folder of a run or saved model, or owner/name on the hub; none with --zero-shot."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled videos: folder per class, data set or manifest; default: the run's validation videos."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Instead of --data: a store made by evl extract; no video is opened."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the listed videos lie; default: beside the list.")] = None,
    layout: Annotated[
        str,
        typer.Option(help="How the data is laid out: ucf101 and the like (default: seen by its lists), or classes."),
    ] = "auto",
    split_number: Annotated[int, typer.Option(min=1, max=3, help="Which split of HMDB51 or UCF101.")] = 1,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="No run: the class names of --data, and a CLIP-like --backbone, untrained (needs: pip install "
            "'evl\\[clip]'; default: the embedded one, which needs nothing).",
        ),
    ] = False,
    backbone: Backbone = None,
    weights: Weights = None,
    prompts: Prompts = [],  # noqa: B006  (typer copies it)
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val or test, where --data has splits (a store: val or test); default: test, else val."
        ),
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips a video; default: the model's own.")] = None,
    crops: Annotated[int | None, typer.Option(help="Crops a clip, 1 or 3; default: the model's own.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read videos; default: one a core.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where predictions and scores are written; default: the run's folder, or NAME_evaluation. With "
            "--zero-shot the model too, or nothing is written."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time, each with all its views; fewer need less memory.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
    num_frames: NumFrames = None,
    stride: Stride = None,
    frames_per_second: FramesPerSecond = None,
    image_size: ImageSize = None,
) -> None:
    """Judge a model on labelled videos: top-1, mean class accuracy, confusion matrix; top-5 of more than five classes.

    evl evaluate runs/mine --data videos/    ·    evl evaluate --zero-shot --backbone
    vit_base_patch16_clip_quickgelu_224.openai --data videos/

    Writes predictions.parquet (evl.read_predictions reads it), metrics.json, confusion.csv and confusion.png. Damaged
    videos are listed and make the exit code 1.
    """
    from evl.assembly import load, save_model
    from evl.cli.common import (
        Bars,
        is_main_process,
        print_evaluation,
        print_json,
        start_logging,
        zero_shot_model,
    )
    from evl.data.loader import default_num_workers
    from evl.distributed import join_world
    from evl.errors import ConfigError, SaveError
    from evl.evaluation import evaluate, evaluate_views, load_for_store, views_of_store, write_evaluation
    from evl.evaluation.saved_predictions import PREDICTIONS
    from evl.features.store import FeatureStore

    start_logging()
    if crops not in (None, 1, 3):
        raise ConfigError(f"--crops {crops}: expected 1 or 3")
    _refuse_mixed(run, data, zero_shot, bool(backbone or weights or prompts))
    refuse_sizes_of_a_run(zero_shot, stride, frames_per_second, image_size)
    if features is not None:
        given = (data, root, clips, crops, workers, num_frames, stride, frames_per_second, image_size)
        if zero_shot or layout != "auto" or split_number != 1 or any(option is not None for option in given):
            raise typer.BadParameter(
                "--features takes the videos, views and sizes of the store: leave out --zero-shot, --data, --root, "
                "--layout, --split-number, --clips, --crops, --workers, --num-frames, --stride, "
                "--frames-per-second and --image-size"
            )
    if zero_shot and out is not None and any((out / name).exists() for name in ("model.json", "config.yaml")):
        raise SaveError(f"{out} holds a model already, which --zero-shot would write over; choose another --out")
    with join_world(device) as world:
        options = dict(root=root, layout=layout, split_number=split_number)
        if zero_shot:
            samples, names = _samples(None, data, split, **options)
            model = zero_shot_model(names, backbone, weights, prompts, num_frames or 8, world.device)
        elif features is not None:
            store = FeatureStore(features)
            model = load_for_store(run, store, world.device)
            out = out or (run if run.is_dir() else Path(f"{run.name}_evaluation"))
            split = _stored_split(store, split, model.class_names)
            samples = store.splits[split].samples
            _tell_if_trained_on(run, samples)
        else:
            model = load(run, device=world.device, **sizes(num_frames, stride, image_size, frames_per_second))
            out = out or (run if run.is_dir() else Path(f"{run.name}_evaluation"))  # of a model of the hub
            samples, _ = _samples(run, data, split, class_names=model.class_names, **options)
        with Bars("videos") as bars:
            task = bars.add("evaluating", len(range(world.rank, len(samples), world.size)))
            options = dict(batch_size=batch_size, world=world, progress=task.advance, trained_on=_trained_on(run))
            if features is not None:
                result = evaluate_views([model], views_of_store(model, store, split), **options)[0]
            else:
                workers = default_num_workers() if workers is None else workers
                result = evaluate(model, samples, num_clips=clips, num_crops=crops, num_workers=workers, **options)
        if is_main_process():
            if json:
                print_json(
                    {
                        **result.to_dict(),
                        "damaged": result.damaged,
                        **({"predictions": f"{out}/{PREDICTIONS}"} if out else {}),
                    }
                )
            else:
                print_evaluation(result)
            if zero_shot and out is not None:
                save_model(model, out, scores=result.to_dict())
            if out is not None:
                write_evaluation(out, result)
    if result.damaged:
        raise typer.Exit(1)


def _refuse_mixed(run: Path | None, data: Path | None, zero_shot: bool, has_zero_shot_options: bool) -> None:
    """Usage errors: a run or --zero-shot, each with what belongs to it."""
    if not zero_shot and run is None:
        raise typer.BadParameter("expected the folder of a run, or --zero-shot [--backbone NAME] --data DATA")
    if not zero_shot and has_zero_shot_options:
        raise typer.BadParameter("--backbone, --weights and --prompt go with --zero-shot; a run has its own")
    if zero_shot and (run is not None or data is None):
        raise typer.BadParameter("--zero-shot takes no run, but [--backbone NAME] --data DATA")


def _samples(run: Path | None, data: Path | None, split: str | None, **options):
    """(samples, class names): the run's own, or of ``data``."""
    from evl.data import read_manifest
    from evl.data.splits import announce_notices
    from evl.errors import DataError
    from evl.training.run_folder import RunFolder

    folder = RunFolder(run) if run is not None else None
    if data is None:
        return _own_samples(folder, split or "val", options["root"]), ()
    manifest = read_manifest(data, **options)
    manifest.require_videos()
    announce_notices(manifest)
    splits = manifest.splits
    if split is not None and split not in splits:
        raise DataError(f"{data} has no split {split!r}, only {', '.join(splits)}")
    chosen = split or next(name for name in ("test", "val", "all", "train") if name in splits)
    samples = splits[chosen]
    if folder is not None:
        samples = _grouped_as_trained(folder, samples, data, options.get("root"))
        _tell_if_trained_on(run, samples)
    return samples, manifest.class_names


def _grouped_as_trained(folder, samples, data: Path, root: Path | None):
    """The samples with groups made as the run made its own, where all of them can be."""
    from evl.config import RunConfig
    from evl.data.groups import with_groups
    from evl.errors import DataError

    if not folder.exists:
        return samples
    group_by = RunConfig.from_yaml(folder.path / "config.yaml").data.group_by
    try:
        return with_groups(samples, group_by, root or (data if data.is_dir() else data.parent), data)
    except DataError:  # it has groups of its own, or names of another kind
        return samples


def _own_samples(folder, split: str, root: Path | None):
    """A split of the run itself, where its videos lie now."""
    from evl.cli.common import console, is_main_process
    from evl.config import RunConfig
    from evl.data.moved import describe_gone, gone_samples, moved_samples, old_root
    from evl.errors import DataError

    samples = folder.samples(split) if folder.exists else ()
    if not samples:
        raise DataError(f"{folder.path} has no videos of its own of the split {split}; give --data")
    config = RunConfig.from_yaml(folder.path / "config.yaml")
    before = old_root(config.data, [*folder.samples("train"), *folder.samples("val")])
    if root is not None:
        samples, before = moved_samples(samples, before, str(root.absolute())), f"{before}, now {root},"
    if (gone := gone_samples({split: samples}, before, how="--root").get(split)) and is_main_process():
        told = describe_gone(len(gone), len(samples), split, gone[0].path, before, "--root")
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return samples


def _stored_split(store, split: str | None, class_names) -> str:
    """The split of the store that is asked for, if it has views and labels that the model knows."""
    from evl.data.labels import clean_label
    from evl.errors import DataError, StoreError

    judged = {name: one for name, one in store.splits.items() if name != "train"}  # which has training clips, no views
    chosen = split or next((name for name in ("test", "val") if name in judged), "val")
    if chosen not in judged:
        raise StoreError(
            f"{store.path} has no views of a split {chosen!r} to judge a model by, only of: {', '.join(judged) or '-'}"
        )
    known = set(map(clean_label, class_names))
    if unknown := sorted({clean_label(sample.label) for sample in judged[chosen].samples} - known):
        raise DataError(f"{store.path} has videos of a class that the model does not know: {unknown[0]!r}")
    return chosen


def _trained_on(run: Path | None):
    """The samples that a run was trained on; () where that is not known."""
    from evl.training.run_folder import RunFolder

    folder = RunFolder(run) if run is not None else None
    return folder.samples("train") if folder is not None and folder.exists else ()


def _tell_if_trained_on(run: Path, samples) -> None:
    from evl.cli.common import console, is_main_process

    if not is_main_process():
        return
    trained = {os.path.realpath(s.path) for s in _trained_on(run)}
    if seen := sum(os.path.realpath(s.path) in trained for s in samples):
        console.print(
            f"[yellow]{seen} of these {len(samples)} videos were trained on: no score of unseen videos[/yellow]"
        )
