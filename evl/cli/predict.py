"""evl predict"""

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
from evl.files import expand_home

NAME = "predict"


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] VIDEO",
            help="A run or saved model (a folder, or owner/name on the hub), then videos or folders of them; with "
            "--zero-shot only these.",
        ),
    ],
    zero_shot: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="No run: class names, as 'opening a door, closing a door', or a file with one a line, and a CLIP-like "
            "--backbone (needs: pip install 'evl\\[clip]'; default: the embedded one, which needs nothing).",
        ),
    ] = None,
    backbone: Backbone = None,
    weights: Weights = None,
    prompts: Prompts = [],  # noqa: B006  (typer copies it)
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document with all scores.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read videos; default: 0 for a few files.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time, each with all its views; fewer need less memory.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
    num_frames: NumFrames = None,
    stride: Stride = None,
    frames_per_second: FramesPerSecond = None,
    image_size: ImageSize = None,
) -> None:
    """Say what is in videos: the most likely classes with their scores.

    evl predict runs/mine clip.mp4    ·    evl predict --zero-shot "opening a door, closing a door" --backbone
    vit_base_patch16_clip_quickgelu_224.openai clip.mp4

    Files that cannot be used are listed with the reason, and make the exit code 1.
    """
    from evl.assembly import load
    from evl.cli.common import Bars, print_json, start_logging, zero_shot_model
    from evl.data.loader import default_num_workers
    from evl.data.paths import videos_at
    from evl.distributed import pick_device
    from evl.inference import predict_views, views_for

    start_logging()
    refuse_sizes_of_a_run(zero_shot is not None, stride, frames_per_second, image_size)
    if zero_shot is not None:
        names = _class_names(zero_shot)
        model = zero_shot_model(names, backbone, weights, prompts, num_frames or 8, pick_device(device))
        videos = paths
    elif backbone is not None or weights is not None or prompts:
        raise typer.BadParameter("--backbone, --weights and --prompt go with --zero-shot; a run has its own")
    elif len(paths) < 2:
        raise typer.BadParameter(
            "expected the folder of a run and a video, or --zero-shot CLASSES [--backbone NAME] VIDEO"
        )
    else:
        model = load(paths[0], device=pick_device(device), **sizes(num_frames, stride, image_size, frames_per_second))
        videos = paths[1:]
    samples = videos_at(videos)
    workers = (0 if len(samples) < 16 else default_num_workers()) if workers is None else workers
    with Bars("videos") as bars:
        task = bars.add("predicting", len(samples))
        stream = views_for(model, samples, num_workers=workers)
        result = predict_views([model], stream, None, batch_size=batch_size, progress=task.advance)[0]
    if json:
        print_json(_document(model, result))
    else:
        _print_table(model, result, top)
    if result.damaged:
        raise typer.Exit(1)


def _class_names(text: str) -> tuple[str, ...]:
    """Of ``opening a door, closing a door``, or of a file with a name a line (``@FILE``, or just its path)."""
    from evl.data.labels import clean_label
    from evl.data.manifest import read_class_names
    from evl.errors import ConfigError

    text = f"@{expand_home(text[1:])}" if text.startswith("@") else expand_home(text)
    if text.startswith("@") or os.path.isfile(text):  # which is False for what is too long to be a path
        return read_class_names(text.removeprefix("@"))
    names = tuple(name for name in map(clean_label, text.split(",")) if name)
    if len(names) < 2:
        raise ConfigError(
            f"--zero-shot {text!r}: expected at least two class names, as 'opening a door, closing a door', or a file"
        )
    return names


def _document(model, result) -> dict:
    from evl.inference.predictor import judging_precision

    predictions = [
        {
            "path": prediction.path,
            "class": model.class_names[prediction.top(1)[0]],
            "scores": {
                model.class_names[y]: round(prediction.scores[y], 6) for y in prediction.top(len(prediction.scores))
            },
        }
        for prediction in result.predictions
    ]
    failed = [{"path": result.paths[index], "error": reason} for index, reason in result.damaged.items()]
    protocol = model.card.protocol(len(predictions), precision=judging_precision(model))
    return {"protocol": protocol, "predictions": predictions, "failed": failed}


def _print_table(model, result, top: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from evl.cli.common import console, output

    if result.predictions:
        table = Table("video", "class", "score")
        for prediction in result.predictions:
            for place, y in enumerate(prediction.top(top)):
                name = escape(model.class_names[y])
                score = f"{100 * prediction.scores[y]:.1f} %"
                table.add_row(
                    escape(prediction.path) if place == 0 else "", f"[bold]{name}[/bold]" if place == 0 else name, score
                )
        output.print(table)
    for index, reason in result.damaged.items():
        console.print(
            f"[red]failed:[/red] {escape(result.paths[index])}: {escape(reason)}", highlight=False, soft_wrap=True
        )
