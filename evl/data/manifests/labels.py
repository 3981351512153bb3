"""How a class name is written: one spelling, wherever a label comes in."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from evl.errors import DataError

# blanks, and what str.strip leaves: zero-width spaces, and marks of byte order from files that were joined
_EDGES = re.compile(r"^[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+$")
_WHOLE = re.compile(r"[0-9]+(\.0*)?")
# what stands for an empty cell in a table that was written as text; "None" and "NA" may be classes
_EMPTY_CELLS = frozenset({"", "nan", "<na>", "nat"})
_LIKE_EMPTY = frozenset({"na", "n/a", "#n/a", "none", "null", "nil", "unlabeled", "unlabelled", "?", "-"})


def clean_label(text: str) -> str:
    """The label in Unicode's composed form (NFC), without blanks around it: what all labels are compared by."""
    text = str(text)
    if not text.isascii():
        return _EDGES.sub("", unicodedata.normalize("NFC", text))
    return text.strip()


def clean_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names of a model, cleaned; as they are where two would become one."""
    names = tuple(names)
    cleaned = tuple(map(clean_label, names))
    return cleaned if len(set(cleaned)) == len(set(names)) else names


def clean_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names, cleaned. DataError where one is empty, or stands there twice by then."""
    cleaned = tuple(map(clean_label, names))
    if "" in cleaned:
        raise DataError("a class name is empty")
    if double := next((name for name, count in Counter(cleaned).items() if count > 1), None):
        raise DataError(f"the class name {double!r} stands there twice")
    return cleaned


def is_empty_cell(value: object) -> bool:
    """Whether a table's cell holds nothing: None, NaN (the number, or its name as text), or blanks."""
    if value is None or value == "" or value != value:
        return True
    text = str(value)
    if len(text) > 4 and text.isascii() and text[0] > " " < text[-1]:
        return False  # most labels and all paths: longer than any of these, without blanks around
    return clean_label(text).casefold() in _EMPTY_CELLS


def looks_empty(label: str) -> bool:
    """Whether a label may stand for "no label", and may be a class as well: None, NA, unknown."""
    return label.casefold() in _LIKE_EMPTY


def class_number(label: str) -> int | None:
    """The number that a label is: 3 of ``3``, and of ``3.0``, as pandas writes it; None for any other text."""
    return int(label.partition(".")[0]) if label.isascii() and _WHOLE.fullmatch(label) else None


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """By number if all are numbers, else by name."""
    if all(class_number(label) is not None for label in labels):
        return tuple(sorted(labels, key=lambda label: (class_number(label), label)))
    return tuple(sorted(labels))


def near_twins(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of class names that differ in case, blanks, underscores, hyphens or the width of letters only."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
        groups[key or name].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
