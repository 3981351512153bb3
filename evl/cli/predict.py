"""evl predict"""

from __future__ import annotations

import os
import sys
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
from evl.runtime.files import expand_home

NAME = "predict"


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] VIDEO",
            help="A run or saved model (a folder, or owner/name on the hub), then videos, folders of them, manifests "
            "(.csv, .parquet, .txt), or - for paths on stdin, one a line; with --zero-shot only these.",
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
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for files that are still being written, until they stop changing.")
    ] = False,
    wait_limit: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="With --wait: at most so long; default: 600.")
    ] = None,
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

    A row of a manifest with start_seconds or end_seconds is a part of its file, and gets its own prediction. Files that
    cannot be used are listed with the reason, and make the exit code 1.
    """
    from evl.cli.common import Bars, console, counting, print_json, start_logging, zero_shot_model
    from evl.data.loader import default_num_workers
    from evl.data.manifests.paths import videos_at
    from evl.inference import predict_videos
    from evl.inference.waiting import LIMIT_SECONDS
    from evl.runtime.distributed import pick_device
    from evl.saving import load

    start_logging()
    if wait_limit is not None and not wait:
        raise typer.BadParameter("--wait-limit goes with --wait, which waits for files that are still being written")
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
    samples = videos_at(_with_stdin(videos))
    workers = (0 if len(samples) < 16 else default_num_workers()) if workers is None else workers
    with Bars() as bars:
        count = counting(bars, "predicting", len(samples))
        options = dict(num_workers=workers, batch_size=batch_size, progress=count)
        limit = (LIMIT_SECONDS if wait_limit is None else wait_limit) if wait else None
        result = predict_videos(model, samples, wait_seconds=limit, **options)
    for notice in result.notices:
        console.print(notice, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json(_document(model, result))
    else:
        _print_table(model, result, top)
    if result.damaged:
        raise typer.Exit(1)


def _with_stdin(paths: list[Path]) -> list[str]:
    """The paths, with those on stdin in the place of ``-``: one a line, or divided by zero bytes (find -print0)."""
    from evl.cli.common import console
    from evl.errors import DataError

    given = list(map(str, paths))
    if "-" not in given:
        return given
    if given.count("-") > 1:
        raise typer.BadParameter("- is there twice, but stdin can be read only once")
    if sys.stdin.isatty():
        console.print("paths from the keyboard, one a line; Ctrl-D ends them", style="yellow", highlight=False)
    content = sys.stdin.buffer.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    read = [os.fsdecode(line) for line in lines if line.strip()]
    if not read:
        raise DataError("-: no paths came on stdin")
    place = given.index("-")
    return [*given[:place], *read, *given[place + 1 :]]


def _class_names(text: str) -> tuple[str, ...]:
    """Of ``opening a door, closing a door``, or of a file with a name a line (``@FILE``, or just its path)."""
    from evl.data.manifests.labels import clean_label
    from evl.data.manifests.manifest import read_class_names
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
            **_place(prediction),
            "class": model.class_names[prediction.best(1)[0]],
            "scores": {
                model.class_names[y]: round(prediction.scores[y], 6) for y in prediction.best(len(prediction.scores))
            },
        }
        for prediction in result.predictions
    ]
    failed = [{**_place(result.samples[index]), "error": reason} for index, reason in result.damaged.items()]
    protocol = model.card.protocol(len(predictions), precision=judging_precision(model))
    return {"protocol": protocol, "predictions": predictions, "failed": failed, "notices": list(result.notices)}


def _place(video) -> dict:
    """The path of a prediction or sample, and its times if it is a part of the file."""
    times = {key: getattr(video, key) for key in ("start_seconds", "end_seconds")}
    return {"path": video.path, **{key: time for key, time in times.items() if time is not None}}


def _print_table(model, result, top: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from evl.cli.common import console, output

    if result.predictions:
        table = Table("video", "class", "score")
        for prediction in result.predictions:
            for place, y in enumerate(prediction.best(top)):
                name = escape(model.class_names[y])
                score = f"{100 * prediction.scores[y]:.1f} %"
                table.add_row(
                    escape(prediction.name) if place == 0 else "", f"[bold]{name}[/bold]" if place == 0 else name, score
                )
        output.print(table)
    for index, reason in result.damaged.items():
        console.print(
            f"[red]failed:[/red] {escape(result.samples[index].name)}: {escape(reason)}",
            highlight=False,
            soft_wrap=True,
        )
