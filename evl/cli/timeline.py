"""evl timeline"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli import options as opt
from evl.cli import timeline_options as line

NAME = "timeline"


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN…] VIDEO",
            help="A run or saved model (a folder, or owner/name on the hub), or several with one encoder; then videos, "
            "folders of them, or manifests, whose rows may be parts of files; with --from nothing.",
        ),
    ] = None,
    earlier: line.Earlier = [],  # noqa: B006  (typer copies it)
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for segments.csv and scores.parquet; of several videos, a folder for each."),
    ] = None,
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            metavar="NAMES",
            help="Also write webvtt, srt, activitynet, labelstudio, boris, elan into --out.",
        ),
    ] = [],  # noqa: B006
    page: line.Page = False,
    overlay: line.Overlay = None,
    every_seconds: line.EverySeconds = None,
    every_frames: line.EveryFrames = None,
    window_seconds: line.WindowSeconds = None,
    on: line.On = [],  # noqa: B006
    off: line.Off = [],  # noqa: B006
    smooth: line.Smooth = None,
    merge_seconds: line.MergeSeconds = None,
    min_seconds: line.MinSeconds = None,
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

    Each sampled frame is read once, and memory does not depend on the length. A command that was killed goes on where
    it was when it is given again with the same --out. segments.csv is a manifest: corrected, it is training data.
    Videos that cannot be used, and damaged stretches, are listed and make the exit code 1.
    """
    from evl.api.timelines import timelines
    from evl.cli.show_timelines import show_timelines, thresholds
    from evl.runtime.cpu import keep_freed_memory

    keep_freed_memory()
    runs, videos = line.runs_and_videos(paths or [])
    if not earlier and not videos:
        raise typer.BadParameter("expected the folder of a run and a video, or --from scores.parquet")
    result = timelines(
        runs if len(runs) > 1 else runs[0] if runs else None,
        videos,
        scores=earlier,
        out=out,
        formats=formats,
        page=page,
        overlay=overlay,
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
