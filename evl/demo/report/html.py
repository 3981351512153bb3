"""Elements of a page, escaped unless they are elements already."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = {"br", "img", "link", "meta", "source"}


class Html(str):
    """Text that is markup already; any other string is text, and escaped where it enters an element."""

    __slots__ = ()


Child = str | int | float | Iterable | None


def element(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """``element("td", "5 < 6", class_="score")`` -> ``<td class="score">5 &lt; 6</td>``.

    Children may be nested lists; None is left out. ``aria_label`` means aria-label, a trailing ``_`` nothing. An
    attribute of None or False is left out, of True has no value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>" + ("" if name in _VOID else f"{join(*children)}</{name}>"))


def join(*children: Child) -> Html:
    """Children one after the other, without an element around them."""
    parts = []
    for child in children:
        if child is None:
            continue
        parts.append(join(*child) if isinstance(child, Iterable) and not isinstance(child, str) else escape(child))
    return Html("".join(parts))


def escape(value: str | int | float) -> str:
    """Safe in text and in quoted attributes; bytes of a file name that are no UTF-8 become ``\\udc..``."""
    if isinstance(value, Html):
        return value
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def number(value: float) -> str:
    """Short, for coordinates: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
