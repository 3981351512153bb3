"""Labels and class names: the same spelling for all of them, whatever file they come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from evl.errors import DataError
from evl.runtime.text import clean_label

_WHOLE = re.compile(r"[0-9]+(\.0*)?")
# texts that programs write for an empty cell; "None" and "NA" are not among them, as they may be classes
_EMPTY_CELLS = frozenset({"", "nan", "<na>", "nat"})
_LIKE_EMPTY = frozenset({"na", "n/a", "#n/a", "none", "null", "nil", "unlabeled", "unlabelled", "?", "-"})


def clean_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the class names of a model, cleaned; unchanged if two different names would become equal."""
    names = tuple(names)
    cleaned = tuple(map(clean_label, names))
    return cleaned if len(set(cleaned)) == len(set(names)) else names


def clean_class_names(names: Iterable[str], source: str | Path | None = None) -> tuple[str, ...]:
    """Returns the class names, cleaned. Raises DataError, with the file ``source``, if a cleaned name is empty or
    appears twice."""
    cleaned = tuple(map(clean_label, names))
    prefix = "" if source is None else f"{source}: "
    if "" in cleaned:
        raise DataError(f"{prefix}a class name is empty")
    if repeated := next((name for name, count in Counter(cleaned).items() if count > 1), None):
        raise DataError(f"{prefix}the class name {repeated!r} appears twice")
    return cleaned


def is_empty_cell(value: object) -> bool:
    """Returns whether a table's cell is empty: None, NaN (the number or the text), or only blanks."""
    if value is None or value == "" or value != value:
        return True
    text = str(value)
    if len(text) > 4 and text.isascii() and text[0] > " " < text[-1]:
        return False  # fast way for most labels and all paths: longer than any text for an empty cell
    return clean_label(text).casefold() in _EMPTY_CELLS


def looks_empty(label: str) -> bool:
    """Returns whether a label may mean "no label", although it may also be a class: None, NA, unlabeled."""
    return label.casefold() in _LIKE_EMPTY


def class_number(label: str) -> int | None:
    """Returns the number in a label: 3 for ``3`` and for ``3.0`` (as pandas writes it); None for any other text."""
    return int(label.partition(".")[0]) if label.isascii() and _WHOLE.fullmatch(label) else None


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Returns the labels sorted: by number if all are numbers, else by name."""
    if all(class_number(label) is not None for label in labels):
        return tuple(sorted(labels, key=lambda label: (class_number(label), label)))
    return tuple(sorted(labels))
