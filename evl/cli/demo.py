"""evl demo"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from evl.cli.common import output, say

NAME = "demo"


def command(
    out: Annotated[Path, typer.Option(help="Where videos, runs and the report go, in a folder of their own.")] = Path(
        "demo"
    ),
    full: Annotated[bool, typer.Option("--full", help="More videos, more steps, five seeds: an hour.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Decides videos, initial values and order.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=100, help="How many seeds, counted from --seed: all is repeated with each.")
    ] = None,
    videos: Annotated[
        int | None, typer.Option(min=32, help="Videos to train on; a third as many are made to judge by.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training.")] = None,
) -> None:
    """Make videos of things that move, train decoders of several kinds on one frozen image model, and compare: in
    minutes, without downloads."""
    from evl.demo.run import run_demo
    from evl.runtime.cpu import keep_freed_memory

    keep_freed_memory()
    print_result(run_demo(out, full=full, seed=seed, seeds=seeds, videos=videos, steps=steps))


def print_result(result) -> None:
    """The table of scores, a prediction, and what to do next."""
    from rich.table import Table

    from evl.demo.report.words import best_for, headline, score_of
    from evl.demo.results import EVL, ROWS, TASKS

    table = Table("", *(f"which {task}" for task in TASKS), "trainable parameters", "seconds")
    best_variant = best_for(result, "motion")
    for variant in ROWS:
        found = [result.of(variant, task) for task in TASKS]
        if not all(found):
            continue
        cells = [f"{score.percent}  ({score.interval})" for score in map(score_of, found)]
        seconds = sum(one.seconds for outcomes in found for one in outcomes)
        bold = "bold" if variant == best_variant else None
        table.add_row(variant, *cells, f"{found[0][0].trainable:,}", f"{seconds:.0f}", style=bold)
    table.add_row("chance", *(f"{result.chance[task]:.1f} %" for task in TASKS), "", "")
    output.print(table)
    (first, *_), (other, *_) = (result.of(EVL, task) for task in TASKS)
    num_seeds = len(result.of(EVL, "motion"))
    intervals = f"t-intervals over {num_seeds} seeds" if num_seeds > 1 else "Wilson's, over videos; one seed"
    prediction, folder = result.prediction, _shown(result.folder)
    best, video, run = prediction.best(1)[0], _shown(prediction.path), _shown(first.folder)
    lines = [
        "top-1 on test videos, whose objects and artist no decoder was trained on, with 95 % intervals "
        f"({intervals}); seconds: training and judging, both tasks",
        f"({first.evaluation.protocol})",
        "",
        " ".join(headline(result)[:2]),
        "",
        f"predicted  {video}: {result.class_names[best]} ({100 * prediction.scores[best]:.1f} %)",
        f"report     {folder / 'report.html'}",
        f"videos     {folder / 'motions'}  (motion.csv, object.csv)",
        f"runs       {run}, {other.folder.name}, …",
        "",
        f"try        evl predict {shlex.quote(str(run))} {shlex.quote(str(video))}",
        "your own   evl train --data FOLDER_WITH_A_FOLDER_PER_CLASS --out runs/mine",
    ]
    for line in lines:
        say(line)


def _shown(path: str | Path) -> Path:
    """Relative to where the user is, if it is below."""
    path, here = Path(path), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
