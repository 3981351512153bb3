"""HTML and Markdown pages from jinja2 templates, and Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from evl.runtime.visible import visible


def render(template: Path, **values) -> str:
    """Renders a template, which may include other templates of its folder.

    In ``.html.j2`` all values are escaped; a ``.md.j2`` has the filters ``plain`` and ``code`` for that. It is an error
    if the template uses a name that is not in ``values``. Control characters become codes (``visible``).
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
    return visible(environment.get_template(template.name).render(values), keep="\n")


def plain(value: object) -> str:
    """Escapes text for Markdown, so that a page shows it unchanged, on one line."""
    text = " ".join(str(value).split())
    text = re.sub(r"([\\`*_{}\[\]<>#|&!~$])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # prevents lists and underlined headings


def code(value: object) -> str:
    """Text as Markdown's inline code, on one line, without backticks."""
    return f"`{' '.join(str(value).replace('`', '').split())}`"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table. Cells must be Markdown already; None is an empty cell."""
    lines = ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]
