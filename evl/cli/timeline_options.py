"""Options of the commands that make timelines: the windows, and how segments are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Page = Annotated[
    bool, typer.Option("--page", help="Also write timeline.html: the video, a lane for each class, curves of scores.")
]
Overlay = Annotated[
    Path | None, typer.Option(metavar="MP4", help="Also write the video with bars of labels and scores, for one video.")
]
Earlier = Annotated[
    list[Path],
    typer.Option("--from", metavar="SCORES", help="scores.parquet of earlier timelines: only find segments anew."),
]
EverySeconds = Annotated[
    float | None, typer.Option("--every", help="Seconds from window to window; default: one per sampled frame.")
]
EveryFrames = Annotated[int | None, typer.Option(min=1, help="The same in frames of the video.")]
WindowSeconds = Annotated[
    float | None, typer.Option(help="Length of a window, for models with segment sampling; default: 4.")
]
On = Annotated[
    list[str],
    typer.Option(
        metavar="[CLASS=]SCORE",
        help="A segment has a window of this score; default: as chosen for the model on validation videos, else 0.5.",
    ),
]
Off = Annotated[
    list[str], typer.Option(metavar="[CLASS=]SCORE", help="It ends below this score; default: 0.6 of --on.")
]
Smooth = Annotated[
    int | None, typer.Option(min=1, help="Scores are means of so many windows (an odd number); default: 1.")
]
MergeSeconds = Annotated[
    float | None, typer.Option(min=0, help="Join segments of a class with a gap of at most so long; default: 0.")
]
MinSeconds = Annotated[float | None, typer.Option(min=0, help="Leave out shorter segments; default: 0.")]


def runs_and_videos(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The first path is a run, and so are the folders with a saved model that follow it; the others are videos."""
    count = 1
    while count < len(paths) and (paths[count] / "model.json").is_file():
        count += 1
    return list(paths[:count]), list(paths[count:])
