"""Text from outside, as it may be shown in a terminal; HTML and Markdown pages from jinja2 templates; stdout."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.text import Text

# control characters, marks that turn the direction of text or break lines, and halves of characters (which stand for
# bytes of a file's name that are not UTF-8)
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# blanks, and characters that str.strip keeps: zero-width spaces, and byte-order marks from files that were joined
_EDGES = re.compile(r"^[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+$")


def visible(text: str, *, keep: str = "") -> str:
    """``text`` with codes such as ``\\x1b`` and ``\\u202e`` for characters that would steer a terminal.

    ``keep``: characters that stay as they are, such as line breaks that evl itself has written.
    """

    def code(found: re.Match) -> str:
        return found[0] if found[0] in keep else found[0].encode("unicode_escape").decode()

    return STEERING.sub(code, text)


def cell(text: str, style: str = "") -> Text:
    """``visible`` text as a cell of rich's tables, where nothing in it is markup."""
    return Text(visible(text), style)


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


def clean_label(text: str) -> str:
    """Returns the label in Unicode's composed form (NFC), without blanks around it, as needed to compare labels."""
    text = str(text)
    if not text.isascii():
        return _EDGES.sub("", unicodedata.normalize("NFC", text))
    return text.strip()


@contextmanager
def written_at_the_end() -> Iterator[None]:
    """What is still in memory of stdout is written when the block ends. Raises OSError if the system refuses, such as
    for a full disk; Python would see it after the exit code. Raises OSError at once if stdout is closed (``>&-``)."""
    if sys.stdout is None:
        raise OSError("stdout is closed, and results are written to it; send it to a file, or to /dev/null")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as problem:
            problem.filename = "stdout cannot be written"
            with suppress(OSError):
                sys.stdout.close()  # else Python tries it again
            raise
