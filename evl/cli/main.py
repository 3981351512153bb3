"""The command ``evl``. Each command is one short file; heavy imports happen when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import typer

from evl.cli import (
    backbones,
    bench,
    check,
    demo,
    embed,
    evaluate,
    export,
    extract,
    import_release,
    predict,
    prepare,
    sweep,
    train,
)
from evl.cli.common import console, error
from evl.errors import EVLError
from evl.runtime.files import expand_home

app = typer.Typer(
    name="evl",
    help="Train, judge and run video classifiers on frozen image encoders.\n\n"
    "First steps:  evl demo   ·   evl check videos/   ·   evl train --data videos/ --out runs/mine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    demo, check, prepare, extract, train, sweep, evaluate, predict, embed, export, import_release, backbones, bench,
)  # fmt: skip


def _telling(command: Callable) -> Callable:
    """The command, with ``~`` in its paths replaced. It says that it was stopped, or what its Ctrl-C says: typer would
    say nothing."""

    @wraps(command)
    def told(*arguments, **options):
        try:
            return command(*arguments, **{name: _at_home(value) for name, value in options.items()})
        except KeyboardInterrupt as stop:
            console.print(str(stop) or "stopped", style="yellow", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(130) from None

    return told


def _at_home(value):
    """An option's value; a path, or each path of a list, with its ``~`` replaced (a shell leaves --out=~/x alone)."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return expand_home(value) if isinstance(value, Path) else value


for module in _COMMANDS:
    app.command(module.NAME)(_telling(module.command))


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits: 0 if all was done, 1 if not, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        app(_spread_set(sys.argv[1:] if arguments is None else arguments))
    except EVLError as problem:
        error(problem)
        sys.exit(1)
    except UnicodeEncodeError as problem:
        error(f"a name cannot be printed here ({problem.reason}); set PYTHONIOENCODING=utf-8")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(1)
    except OSError as problem:
        error(problem)
        sys.exit(1)


def _spread_set(arguments: list[str]) -> list[str]:
    """``--set a=1 b=2`` means ``--set a=1 --set b=2``; so does ``--heads``."""
    spread: list[str] = []
    inside = None
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument if argument in ("--set", "--heads") else None
        elif inside is not None and spread[-1] != inside:
            if "=" in argument and "." in argument.partition("=")[0]:
                spread.append(inside)
            else:
                inside = None
        spread.append(argument)
    return spread
