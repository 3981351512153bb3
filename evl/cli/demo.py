"""evl demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "demo"


def command(
    out: Annotated[Path, typer.Option(help="Where videos and runs go.")] = Path("demo"),
) -> None:
    """Make a small labelled set of videos, train on it, judge, and predict one: in minutes, without downloads."""
    raise typer.Exit(1)
