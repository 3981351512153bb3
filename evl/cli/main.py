"""The command ``evl``. Each command is one short file; heavy imports happen when it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Annotated

import typer

from evl._version import __version__
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
    timeline,
    train,
    watch,
)
from evl.cli.common import as_options, error, exit_code, fill_resume, spread_set, tell
from evl.errors import EVLError
from evl.runtime.files import expand_home
from evl.runtime.parallel import end_workers, stopped_by_sigterm
from evl.runtime.progress import start_logging
from evl.runtime.text import written_at_the_end

log = logging.getLogger("evl")
app = typer.Typer(
    name="evl",
    help="Train, judge and run video classifiers on frozen image encoders.\n\n"
    "First steps:  evl demo   ·   evl check videos/   ·   evl train --data videos/ --out runs/mine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    demo, check, prepare, extract, train, sweep, evaluate, predict, timeline, watch, embed, export, import_release,
    backbones, bench,
)  # fmt: skip


def _telling(name: str, command: Callable) -> Callable:
    """The command, with ``~`` in its paths replaced, and with what evl logs on stderr. Errors and warnings name its
    options. Where Ctrl-C stops it, a message says so, which typer alone would not print."""

    @wraps(command)
    def told(*arguments, **options):
        start_logging()
        log.addFilter(naming_options)
        try:
            return command(*arguments, **{key: _at_home(value) for key, value in options.items()})
        except KeyboardInterrupt as stop:
            end_workers()
            tell(str(stop) or "stopped", style="yellow")
            raise typer.Exit(130) from None
        except EVLError as problem:
            error(as_options(str(problem), _options_of(name)))
            raise typer.Exit(exit_code(problem)) from None
        finally:
            log.removeFilter(naming_options)

    def naming_options(record: logging.LogRecord) -> bool:
        record.msg, record.args = as_options(record.getMessage(), _options_of(name)), ()
        return True

    return told


@cache
def _options_of(name: str) -> dict[str, str]:
    """``{"num_frames": "--num-frames", "data": "DATA"}``: the options and arguments of a command, by parameter."""
    params = typer.main.get_command(app).commands[name].params
    return {one.name: one.opts[0] if one.opts[0].startswith("-") else one.opts[0].upper() for one in params}


def _at_home(value):
    """An option's value; a path, or each path of a list, with its ``~`` replaced (a shell leaves --out=~/x alone)."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return expand_home(value) if isinstance(value, Path) else value


@app.callback(invoke_without_command=True)
def _evl(version: Annotated[bool, typer.Option("--version", help="Print the version of evl.")] = False) -> None:
    if version:
        print(f"evl {__version__}")
        raise typer.Exit


for module in COMMANDS:
    app.command(module.NAME)(_telling(module.NAME, module.command))


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits: 0 all is done, 1 not, 2 wrong usage or settings, 130 Ctrl-C or SIGTERM."""
    try:
        with stopped_by_sigterm(), written_at_the_end():
            app(fill_resume(spread_set(sys.argv[1:] if arguments is None else arguments)))
    except UnicodeEncodeError as problem:
        error(f"a name cannot be printed here ({problem.reason}); set PYTHONIOENCODING=utf-8")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(1)
    except (EVLError, OSError) as problem:
        error(problem)
        sys.exit(exit_code(problem))
