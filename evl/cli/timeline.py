"""evl timeline"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli import options as opt

NAME = "timeline"


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN] VIDEO",
            help="A run or saved model (a folder, or owner/name on the hub), then videos, folders of them, or "
            "manifests (.csv, .parquet, .txt), whose rows may be parts of files; with --from nothing.",
        ),
    ] = None,
    earlier: Annotated[
        list[Path],
        typer.Option(
            "--from", metavar="SCORES", help="scores.parquet of an earlier timeline: only find segments anew."
        ),
    ] = [],  # noqa: B006  (typer copies it)
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for segments.csv and scores.parquet; of several videos, a folder for each."),
    ] = None,
    every_seconds: Annotated[
        float | None, typer.Option("--every", help="Seconds from window to window; default: one per sampled frame.")
    ] = None,
    every_frames: Annotated[int | None, typer.Option(min=1, help="The same in frames of the video.")] = None,
    window_seconds: Annotated[
        float | None, typer.Option(help="Length of a window, for models with segment sampling; default: 4.")
    ] = None,
    on: Annotated[
        list[str], typer.Option(metavar="[CLASS=]SCORE", help="A segment has a window of this score; default: 0.5.")
    ] = [],  # noqa: B006
    off: Annotated[
        list[str], typer.Option(metavar="[CLASS=]SCORE", help="It ends below this score; default: 0.6 of --on.")
    ] = [],  # noqa: B006
    smooth: Annotated[
        int | None, typer.Option(min=1, help="Scores are means of so many windows (an odd number); default: 1.")
    ] = None,
    merge_seconds: Annotated[
        float | None, typer.Option(min=0, help="Join segments of a class with a gap of at most so long; default: 0.")
    ] = None,
    min_seconds: Annotated[float | None, typer.Option(min=0, help="Leave out shorter segments; default: 0.")] = None,
    json: opt.Json = False,
    crops: opt.Crops = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows at a time; fewer need less memory.")] = None,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
) -> None:
    """Find what happens when in long videos: scores of windows along each video, and segments with labels.

    evl timeline runs/mine match.mp4 --out match    ·    evl timeline --from match/scores.parquet --on 0.7 --out again

    Each sampled frame is read once, and memory does not depend on the length. segments.csv is a manifest: corrected, it
    is training data. Videos that cannot be used, and damaged stretches, are listed and make the exit code 1.
    """
    from evl.api.timelines import timelines
    from evl.cli.show_timelines import show_timelines, thresholds

    run, *videos = paths or [None]
    if not earlier and not videos:
        raise typer.BadParameter("expected the folder of a run and a video, or --from scores.parquet")
    result = timelines(
        run,
        videos,
        scores=earlier,
        out=out,
        every_seconds=every_seconds,
        every_frames=every_frames,
        window_seconds=window_seconds,
        on=thresholds("--on", on),
        off=thresholds("--off", off),
        smooth=smooth,
        merge_seconds=merge_seconds,
        min_seconds=min_seconds,
        num_crops=crops,
        batch_size=batch_size,
        device=device,
        num_frames=num_frames,
        stride=stride,
        frames_per_second=frames_per_second,
        image_size=image_size,
    )
    show_timelines(result, out, json)
