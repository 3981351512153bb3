"""What commands share: where messages go, progress, and the fields of a run."""

from __future__ import annotations

import json
import logging
import os
import sys

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

# in a file or pipe, lines are not broken at 80 columns
console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)  # messages and progress
output = Console(width=None if sys.stdout.isatty() else 200)  # results


def error(problem: BaseException) -> None:
    console.print(f"[bold red]error:[/bold red] {escape(str(problem))}", highlight=False, soft_wrap=True)


def print_json(document) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def start_logging() -> None:
    """Libraries log, commands print: messages of evl on stderr, of the first process only."""
    logger = logging.getLogger("evl")
    logger.setLevel(logging.INFO if int(os.environ.get("RANK", 0)) == 0 else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_path=False, show_level=False, highlighter=None))


def is_main_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def progress_bar(unit: str):
    """A bar with count, share and time left; on a terminal only."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not (console.is_terminal and is_main_process()),
    )
