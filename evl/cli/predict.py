"""evl predict"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from evl.cli import options as opt

NAME = "predict"


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] VIDEO",
            help="A run or saved model (a folder, or owner/name on the hub), then videos, folders of them, manifests "
            "(.csv, .parquet, .txt), or - for paths on stdin, one per line; with --zero-shot only these.",
        ),
    ],
    zero_shot: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="No run: class names, as 'opening a door, closing a door', or a file with one per line, and a "
            "CLIP-like --backbone (needs: pip install 'evl\\[clip]'; default: the embedded one, which needs nothing).",
        ),
    ] = None,
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    prompts: opt.Prompts = [],  # noqa: B006  (typer copies it)
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    json: opt.Json = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for files that are still being written, until they stop changing.")
    ] = False,
    wait_limit: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="With --wait: at most so long; default: 600.")
    ] = None,
    workers: opt.Workers = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
) -> None:
    """Predict the classes of videos, with their scores.

    evl predict runs/mine clip.mp4    ·    evl predict --zero-shot "opening a door, closing a door" --backbone
    vit_base_patch16_clip_quickgelu_224.openai clip.mp4

    A row of a manifest with start_seconds or end_seconds is a part of its file, and gets its own prediction. Files that
    cannot be used are listed with the reason, and make the exit code 1.
    """
    from evl.api.judging import predict
    from evl.cli.show_predictions import show_predictions
    from evl.cli.zero_shot import class_names_of, refuse_mixed, zero_shot_model
    from evl.inference.predictor import LIMIT_SECONDS

    if wait_limit is not None and not wait:
        raise typer.BadParameter("--wait-limit goes with --wait, which waits for files that are still being written")
    refuse_mixed(zero_shot is not None, (backbone, weights, prompts), (stride, frames_per_second, image_size))
    limit = (LIMIT_SECONDS if wait_limit is None else wait_limit) if wait else None
    how = dict(num_workers=workers, batch_size=batch_size, wait_seconds=limit)
    if zero_shot is not None:
        names = class_names_of(zero_shot)
        model = zero_shot_model(names, backbone, weights, prompts, num_frames, device)
        show_predictions(predict(model, _with_stdin(paths), **how), json, top)
        return
    if len(paths) < 2:
        raise typer.BadParameter(
            "expected the folder of a run and a video, or --zero-shot CLASSES [--backbone NAME] VIDEO"
        )
    sizes = dict(num_frames=num_frames, stride=stride, frames_per_second=frames_per_second, image_size=image_size)
    show_predictions(predict(paths[0], _with_stdin(paths[1:]), device=device, **how, **sizes), json, top)


def _with_stdin(paths: list[Path]) -> list[str]:
    """The paths, with those on stdin in the place of ``-``: one per line, or divided by zero bytes (find -print0)."""
    from evl.cli.common import tell
    from evl.errors import DataError

    texts = list(map(str, paths))
    if "-" not in texts:
        return texts
    if texts.count("-") > 1:
        raise typer.BadParameter("- is there twice, but stdin can be read only once")
    if sys.stdin.isatty():
        tell("paths from the keyboard, one per line; Ctrl-D ends them", style="yellow")
    content = sys.stdin.buffer.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    read = [os.fsdecode(line) for line in lines if line.strip()]
    if not read:
        raise DataError("-: no paths came on stdin")
    place = texts.index("-")
    return [*texts[:place], *read, *texts[place + 1 :]]
