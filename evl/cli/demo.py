"""evl demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "demo"


def command(
    out: Annotated[Path, typer.Option(help="Where videos, runs and the report go, in a folder of their own.")] = Path(
        "demo"
    ),
    full: Annotated[bool, typer.Option("--full", help="More videos, more steps, five seeds: half an hour.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Decides videos, initial values and order.")] = 0,
    videos: Annotated[
        int | None, typer.Option(min=32, help="Videos to train on; a third as many are made to judge by.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training.")] = None,
) -> None:
    """Make videos of things that move, train five decoders on one frozen image model, and compare: in minutes, without
    downloads."""
    from evl.cli.show_demo import print_result
    from evl.demo.run import run_demo

    print_result(run_demo(out, full=full, seed=seed, videos=videos, steps=steps))
