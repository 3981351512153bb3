"""What commands share: where messages and results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from evl.errors import ArgumentError
from evl.runtime.progress import console

# in a file or pipe, lines are not broken at 80 columns
output = Console(emoji=False, width=None if sys.stdout.isatty() else 200)  # results; ``console``: messages and progress
_OPTIONS = {"num_clips": "clips", "num_crops": "crops", "num_workers": "workers", "settings": "set", "grid": "set"}


def say(text: str, *, label: str = "", color: str = "red", style: str = "", to: Console = output) -> None:
    """A line of results, ``label`` in color before it; it is not broken, and nothing in it is markup."""
    parts = [(f"{label}: ", color), text] if label else [text]
    to.print(Text.assemble(*parts), style=style, highlight=False, soft_wrap=True)


def tell(text: str, *, label: str = "", color: str = "red", style: str = "") -> None:
    """A message, on stderr."""
    say(text, label=label, color=color, style=style, to=console)


def error(problem: BaseException) -> None:
    text = str(problem)
    if isinstance(problem, ArgumentError):
        text = f"{problem.reason}: leave out {', '.join(map(_option, problem.names))}"
    tell(text, label="error", color="bold red")


def _option(name: str) -> str:
    """``num_clips`` → ``--clips``."""
    return f"--{_OPTIONS.get(name, name).replace('_', '-')}"


def print_json(document) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def to_go_on(how: str) -> Iterator[None]:
    """When training is interrupted and has saved a checkpoint, the message ends with how to go on."""
    from evl.training import Interrupted

    try:
        yield
    except Interrupted as stop:
        raise KeyboardInterrupt(f"{stop}; go on with: {how}") from None
