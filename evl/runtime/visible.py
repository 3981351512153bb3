"""Text from outside, such as class names and paths, as it may be shown in a terminal or on a page."""

from __future__ import annotations

import re

from rich.text import Text

# control characters, marks that turn the direction of text or break lines, and halves of characters (which stand for
# bytes of a file's name that are not UTF-8)
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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
