"""evl evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli import options as opt

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
    features: opt.Features = None,
    root: opt.Root = None,
    layout: opt.Layout = "auto",
    split_number: opt.SplitNumber = 1,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="No run: the class names of --data, and a CLIP-like --backbone, untrained (needs: pip install "
            "'evl\\[clip]'; default: the embedded one, which needs nothing).",
        ),
    ] = False,
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    prompts: opt.Prompts = [],  # noqa: B006  (typer copies it)
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val or test, where --data has splits (a store: val or test); default: test, else val."
        ),
    ] = None,
    clips: opt.Clips = None,
    crops: opt.Crops = None,
    workers: opt.Workers = None,
    metrics: Annotated[
        list[str],
        typer.Option(
            "--metric",
            metavar="MODULE:NAME",
            help="Your own metric besides evl's (may be given again); default: those that the run was trained with.",
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where predictions and scores are written; default: the run's folder, or NAME_evaluation. With "
            "--zero-shot the model too, or nothing is written."
        ),
    ] = None,
    json: opt.Json = False,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
) -> None:
    """Judge a model on labelled videos: top-1 and other metrics, and the confusion matrix.

    evl evaluate runs/mine --data videos/    ·    evl evaluate --zero-shot --backbone
    vit_base_patch16_clip_quickgelu_224.openai --data videos/

    Writes predictions.parquet (evl.read_predictions reads it), metrics.json, confusion.csv and confusion.png. Damaged
    videos are listed and make the exit code 1.
    """
    from evl.api.judging import evaluate
    from evl.api.stores import open_store
    from evl.cli.show_evaluation import show_evaluation
    from evl.cli.zero_shot import refuse_mixed, zero_shot_model
    from evl.data.manifests.manifest import read_manifest
    from evl.evaluation import held_for_scores

    _refuse_mixed(run, zero_shot, data, features, out)
    refuse_mixed(zero_shot, (backbone, weights, prompts), (stride, frames_per_second, image_size))
    videos = dict(root=root, layout=layout, split_number=split_number)
    how = dict(split=split, num_clips=clips, num_crops=crops, num_workers=workers, batch_size=batch_size,
               metrics=metrics or None)  # fmt: skip
    if zero_shot:
        manifest = read_manifest(data, **videos)
        model = zero_shot_model(manifest.class_names, backbone, weights, prompts, num_frames, device)
        with held_for_scores(out):
            return show_evaluation(evaluate(model, manifest, **how), out, json, model)
    how |= dict(num_frames=num_frames, stride=stride, frames_per_second=frames_per_second, image_size=image_size)
    source = data if features is None else open_store(features)
    out = out or (run if run.is_dir() else Path(f"{run.name}_evaluation"))  # of a model of the hub
    with held_for_scores(out):
        show_evaluation(evaluate(run, source, device=device, **videos, **how), out, json)


def _refuse_mixed(
    run: Path | None, zero_shot: bool, data: Path | None, features: Path | None, out: Path | None
) -> None:
    """Usage errors: a run or --zero-shot, each with what belongs to it."""
    from evl.errors import SaveError

    if not zero_shot and run is None:
        raise typer.BadParameter("expected the folder of a run, or --zero-shot [--backbone NAME] --data DATA")
    if zero_shot and (run is not None or data is None):
        raise typer.BadParameter("--zero-shot takes no run, but [--backbone NAME] --data DATA")
    if features is not None and (zero_shot or data is not None):
        raise typer.BadParameter("--features goes with a run, and takes the place of --data: leave out the others")
    if zero_shot and out is not None and any((out / name).exists() for name in ("model.json", "config.yaml")):
        raise SaveError(f"{out} holds a model already, which --zero-shot would write over; choose another --out")
