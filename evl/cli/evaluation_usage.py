"""Options that only evl evaluate has, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Run = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN", help="Folder of a run or saved model, or owner/name on the hub; none with --zero-shot."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Labelled videos: folder per class, data set or manifest; default: the run's validation videos."),
]
ZeroShot = Annotated[
    bool,
    typer.Option(
        "--zero-shot",
        help="No run: the class names of --data, and a CLIP-like --backbone, untrained (needs: pip install "
        "'evl\\[clip]'; default: the embedded one, which needs nothing).",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="train, val or test, where --data has splits (a store: val or test); default: test, else val."),
]
Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric",
        metavar="MODULE:NAME",
        help="Your own metric besides evl's (may be given again); default: those that the run was trained with.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Where predictions and scores are written; default: the run's folder (with --timeline: timeline in it), "
        "or NAME_evaluation. With --zero-shot the model too, or nothing is written."
    ),
]
Timeline = Annotated[
    bool,
    typer.Option("--timeline", help="Judge what is found when in long videos, by the segments that --data lists."),
]
ChooseThresholds = Annotated[
    bool,
    typer.Option(
        "--choose-thresholds",
        help="With --timeline: first choose each class's threshold on the split val of --data, and keep them with RUN.",
    ),
]


def refuse_mixed_runs(
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


def refuse_mixed_kinds(is_timeline: bool, of_timelines: Mapping[str, Any], of_videos: Mapping[str, Any]) -> None:
    """Usage errors: options of --timeline without it, or options of whole videos with it. Both by name; an option is
    None, False or empty where it was not given."""
    given = of_videos if is_timeline else of_timelines
    wrong = [name for name, value in given.items() if value is not None and value is not False and value != []]
    if not wrong:
        return
    names = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
    if is_timeline:
        raise typer.BadParameter(f"--timeline judges by windows and segments: leave out {names}")
    raise typer.BadParameter(f"{names}: only with --timeline, which judges what is found when in long videos")


def folder_for(run: Path | None, out: Path | None, *, is_timeline: bool = False) -> Path | None:
    """Where an evaluation is written."""
    if out is not None or run is None:
        return out
    if not run.is_dir():  # of a model of the hub
        return Path(f"{run.name}_evaluation")
    return run / "timeline" if is_timeline else run
