"""Pages of HTML and Markdown from jinja2 templates, and Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def render(template: Path, **values) -> str:
    """The text of a template, which may include others of its folder.

    In ``.html.j2`` every value is escaped; a ``.md.j2`` has the filters ``plain`` and ``code`` for that. A name that
    the template uses and nobody gave is an error. Bytes of a file name that are not UTF-8 are written as ``\\udc..``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "code": code}
    text = environment.get_template(template.name).render(values)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: object) -> str:
    """Text as Markdown that shows it as it is: on one line, its special characters escaped."""
    text = " ".join(str(value).split())
    text = re.sub(r"([\\`*_{}\[\]<>#|&!~$])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # no list inside a list, no underlined heading


def code(value: object) -> str:
    """Text as Markdown's inline code, on one line and without backticks."""
    return f"`{' '.join(str(value).replace('`', '').split())}`"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table. Cells are Markdown already; None is an empty cell."""
    lines = ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]
