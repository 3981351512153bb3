"""evl demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "demo"


def command(
    out: Annotated[Path, typer.Option(help="Where videos and runs go, in a folder of their own.")] = Path("demo"),
) -> None:
    """Make a small labelled set of videos, train on it, judge, and predict one: in minutes, without downloads."""
    from rich.table import Table

    from evl.cli.common import Bars, output, start_logging
    from evl.cli.evaluate import print_evaluation
    from evl.demo.run import run_demo

    start_logging()
    with Bars("") as bars:
        result = run_demo(out, bar=lambda description, total: bars.add(description, total).to)
    evl, probe = result.evaluations.values()
    print_evaluation(evl)
    table = Table("on the same frozen features", "top-1 on unseen videos")
    table.add_row("[bold]EVL decoder[/bold]", f"[bold]{evl.metrics.top1:.1f} %[/bold]")
    table.add_row("mean-pooled linear probe", f"{probe.metrics.top1:.1f} %")
    table.add_row("chance", f"{result.chance:.1f} %")
    output.print(table)
    best = result.example.top(1)[0]
    output.print(
        f"predicted {result.example.path}: {result.class_names[best]} ({100 * result.example.scores[best]:.1f} %)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    folder = result.folder
    output.print(
        f"\nvideos        {folder}/videos\n"
        f"trained run   {folder}/evl  (metrics.json, predictions.jsonl, confusion.png)\n"
        f"linear probe  {folder}/linear-probe\n\n"
        f"try           evl predict {folder}/evl {folder}/videos/val\n"
        "your own      evl train --data FOLDER_WITH_A_FOLDER_PER_CLASS --out runs/mine",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
