"""What commands share: where messages and results go."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from evl.errors import ConfigError, EVLError
from evl.runtime.progress import console
from evl.runtime.text import STEERING, visible

_ARGUMENT = re.compile(r"`([a-z_.]+)(?:=([^`]*))?`")
# in a file or pipe, lines are not broken at 80 columns
output = Console(
    emoji=False, width=None if sys.stdout is not None and sys.stdout.isatty() else 200
)  # results; ``console``: messages and progress


def say(
    text: str, *, label: str = "", color: str = "red", style: str = "", to: Console = output, keep: str = ""
) -> None:
    """A line of results, ``label`` in color before it; it is not broken, and nothing in it is markup. Control
    characters become codes, but for those in ``keep``."""
    label, text = visible(label), visible(text, keep=keep)
    parts = [(f"{label}: ", color), text] if label else [text]
    to.print(Text.assemble(*parts), style=style, highlight=False, soft_wrap=True)


def tell(text: str, *, label: str = "", color: str = "red", style: str = "") -> None:
    """A message, on stderr."""
    say(text, label=label, color=color, style=style, to=console)


def error(problem: BaseException | str) -> None:
    """An error of the system is told without its number, such as "[Errno 28]"."""
    if isinstance(problem, OSError) and not isinstance(problem, EVLError) and problem.strerror:
        problem = f"{problem.filename or 'cannot read or write'}: {problem.strerror.lower()}"
    say(str(problem), label="error", color="bold red", to=console, keep="\n")


def exit_code(problem: BaseException) -> int:
    """2 for settings that are wrong, as for wrong usage; else 1."""
    return 2 if isinstance(problem, ConfigError) else 1


def as_options(text: str, options: Mapping[str, str]) -> str:
    """A message with arguments in backquotes → the same with options of a command, ``options`` by their names.

    `` `out` `` → ``--out``; `` `num_clips=4` `` → ``--clips 4``; `` `data.root=FOLDER` `` → ``--set data.root=FOLDER``.
    """

    def option(found: re.Match) -> str:
        name, value = found.groups()
        name = "settings" if name == "grid" else name if name in options else name.removeprefix("num_")
        if name in options:
            return options[name] if value in (None, "True") else f"{options[name]} {shlex.quote(value)}"
        place = _place_of(name) if "settings" in options else None
        return found[0] if place is None else f"--set {place}" if value is None else f"--set {place}={value}"

    return _ARGUMENT.sub(option, text)


def _place_of(name: str) -> str | None:
    from evl.api.settings import place_of

    try:
        return place_of(name)
    except ConfigError:
        return None


def print_json(document, *, indent: int | None = 2) -> None:
    """One JSON document on stdout and nothing else; without ``indent`` on one line, at once.

    Characters that would steer a terminal are in JSON's own codes.
    """
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    sys.stdout.write(STEERING.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text) + "\n")
    if indent is None:
        sys.stdout.flush()


@contextmanager
def to_go_on(how: str) -> Iterator[None]:
    """When training is interrupted and has saved a checkpoint, the message ends with how to go on."""
    from evl.training import Interrupted

    try:
        yield
    except Interrupted as stop:
        raise KeyboardInterrupt(f"{stop}; go on with: {how}") from None


def fill_resume(arguments: list[str]) -> list[str]:
    """A bare ``--resume`` → ``--resume=yes``: typer has no option whose value may be left out."""
    pairs = zip(arguments, [*arguments, ""][1:], strict=True)
    return ["--resume=yes" if one == "--resume" and after != "auto" else one for one, after in pairs]


def spread_set(arguments: list[str]) -> list[str]:
    """``--set a=1 b=2`` means ``--set a=1 --set b=2``."""
    spread: list[str] = []
    inside = None
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument if argument == "--set" else None
        elif inside is not None and spread[-1] != inside:
            if re.match(r"[\w.]+=", argument):
                spread.append(inside)
            else:
                inside = None
        spread.append(argument)
    return spread
