"""evl evaluate"""

from __future__ import annotations

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
    from evl.api.judging import choose_split, evaluate
    from evl.api.settings import open_store
    from evl.cli.common import (
        is_main_process,
        print_evaluation,
        print_json,
        start_logging,
        zero_shot_model,
    )
    from evl.data.manifests.manifest import read_manifest
    from evl.errors import ConfigError, SaveError
    from evl.evaluation import write_evaluation
    from evl.evaluation.saved_predictions import PREDICTIONS
    from evl.runtime.distributed import join_world
    from evl.saving import save_model

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
        if zero_shot:
            data = read_manifest(data, root=root, layout=layout, split_number=split_number)
            choose_split(data, split)  # which may not be there
            model = zero_shot_model(data.class_names, backbone, weights, prompts, num_frames or 8, world.device)
            fitted = {}
        else:
            model, fitted = run, sizes(num_frames, stride, image_size, frames_per_second)
            out = out or (run if run.is_dir() else Path(f"{run.name}_evaluation"))  # of a model of the hub
        result = evaluate(
            model,
            open_store(features) if features is not None else data,
            split=split,
            root=root,
            layout=layout,
            split_number=split_number,
            num_clips=clips,
            num_crops=crops,
            batch_size=batch_size,
            num_workers=workers,
            device=device,
            **fitted,
        )
        if is_main_process():
            if json:
                written = {"predictions": f"{out}/{PREDICTIONS}"} if out else {}
                print_json({**result.to_dict(), "damaged": result.damaged, **written})
            else:
                print_evaluation(result)
            if zero_shot and out is not None:
                save_model(model, out, scores=result.to_dict())
            if out is not None:  # last, for the scores are shown even if they cannot be written
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
