"""evl watch"""

from __future__ import annotations

from typing import Annotated

import typer

from evl.cli import options as opt
from evl.cli import timeline_options as line

NAME = "watch"


def command(
    run: Annotated[str, typer.Argument(help="A run or saved model (a folder, or owner/name on the hub).")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Cameras (0 or /dev/video0), addresses (rtsp, http, udp …), - for standard input, files, and folders "
            "into which files are put.",
        ),
    ],
    every_seconds: line.EverySeconds = None,
    every_frames: line.EveryFrames = None,
    stride_rate: Annotated[
        float | None,
        typer.Option(help="For models with a stride: frames per second that it is meant for; default: count frames."),
    ] = None,
    window_seconds: line.WindowSeconds = None,
    memory: Annotated[
        float | None,
        typer.Option(help="For causal side networks: a state instead of windows, which remembers so many frames."),
    ] = None,
    on: line.On = [],  # noqa: B006  (typer copies it)
    off: line.Off = [],  # noqa: B006
    smooth: line.Smooth = None,
    merge_seconds: line.MergeSeconds = None,
    min_seconds: line.MinSeconds = None,
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one a line, and nothing else.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Print the scores of each window, too.")] = False,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Post events as JSON to this address (http or https).")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Files grow: wait for more at their end.")] = False,
    new_only: Annotated[bool, typer.Option("--new-only", help="Leave out what is in a folder already.")] = False,
    leave_out: Annotated[
        bool | None,
        typer.Option(
            "--leave-out/--all-frames",
            help="If the model is too slow: leave out frames, or let the source wait; default: as the source needs it.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without data after which a source counts as broken.")] = 10.0,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Give a source up after so many tries in a row; default: never.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="At the end, print delay, rates and costs.")] = False,
    crops: opt.Crops = None,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
) -> None:
    """Watch cameras, streams and folders: print when something begins and ends, while it happens.

    evl watch runs/mine 0    ·    evl watch runs/mine rtsp://door/1 rtsp://yard/1 --json --webhook https://my.site/hook

    Each sampled frame is encoded once. What breaks is opened again. Ctrl-C ends with a summary. The exit code is 1 if a
    source could not be read, or if events did not reach the webhook.
    """
    from evl.api.watching import watch
    from evl.cli.show_timelines import thresholds
    from evl.cli.show_watch import show_watch

    watched = watch(
        run,
        sources,
        every_seconds=every_seconds,
        every_frames=every_frames,
        stride_rate=stride_rate,
        window_seconds=window_seconds,
        memory=memory,
        on=thresholds("--on", on),
        off=thresholds("--off", off),
        smooth=smooth,
        merge_seconds=merge_seconds,
        min_seconds=min_seconds,
        scores=scores,
        webhook=webhook,
        follow=follow,
        new_only=new_only,
        leave_out=leave_out,
        timeout=timeout,
        retries=retries,
        num_crops=crops,
        device=device,
        num_frames=num_frames,
        stride=stride,
        frames_per_second=frames_per_second,
        image_size=image_size,
    )
    show_watch(watched, as_json=json, stats=stats)
