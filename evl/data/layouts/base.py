"""What layouts share: rows of an annotation, and the reading of JSON, CSV and text with errors for people."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.data.manifests.columns import header_cells
from evl.data.manifests.labels import clean_label
from evl.data.manifests.listing import SPLIT_NAMES, is_video_name
from evl.data.manifests.text import read_text
from evl.data.manifests.text_table import table_rows
from evl.errors import DataError


@dataclass(frozen=True)
class FoundLayout:
    """A recognised layout: its name, its annotation files, and the folder below which its videos are."""

    name: str
    files: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class Row:
    """One video of an annotation. ``label``: cleaned. ``file``: its published name, or path below the videos' folder.

    ``uncut``: the name, without ending, of the file it is part of, with its times, if the part itself is not there.
    """

    split: str
    label: str | None
    file: str
    uncut: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self):
        if self.label is not None:
            object.__setattr__(self, "label", clean_label(self.label))

    @property
    def name(self) -> str:
        return name_of(self.file)


@dataclass(frozen=True)
class Annotation:
    """All rows, and the class names in their published order (None: sorted labels)."""

    rows: tuple[Row, ...]
    class_names: tuple[str, ...] | None = None


def name_of(file: str) -> str:
    """A file's name without folders, and without ending if that is a video's: names may have dots."""
    file = os.path.basename(file)
    return os.path.splitext(file)[0] if is_video_name(file) else file


def split_of(text: str) -> str | None:
    """train, val or test for a split's name, or a file name with one in it such as kinetics_400_train."""
    words = text.lower().replace("-", "_").replace(".", "_").split("_")
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def read_json(file: Path):
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def read_json_rows(file: Path, *fields: str) -> list[dict]:
    """A list of objects that all have ``fields``."""
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(fields) for row in rows):
        raise DataError(f"{file}: expected a list of objects with {', '.join(fields)}")
    return rows


def read_lines(file: Path) -> list[str]:
    """Lines without blanks around them; empty ones left out."""
    return [line.strip() for line in _read_text(file).splitlines() if line.strip()]


def read_csv(file: Path, *required: str) -> list[dict[str, str]]:
    """The rows of a table that has the columns ``required``. Raises DataError for one with surplus cells."""
    return [row for _, row in table_rows(file, _read_text(file), required)[1]]


def _read_text(file: Path) -> str:
    try:
        return read_text(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def csv_header(file: Path, *required: str) -> tuple[str, ...]:
    """The columns of a table in UTF-8, with whatever divides the ``required`` ones; () for what is none. Only the start
    of the file is read."""
    try:
        with open(file, "rb") as content:
            start = content.read(4096)
        line = start.decode("utf-8-sig", errors="replace").splitlines()[0]
        return tuple(header_cells(line, required)[1])
    except (OSError, IndexError):
        return ()


def class_name(file: Path, names: Sequence[str], number) -> str:
    """The name of a class by its number from 0."""
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise DataError(f"{file}: label {number!r}, expected a number from 0 to {len(names) - 1}")
    return names[number]


def refuse_doubles(file: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The names, cleaned, which must differ."""
    names = tuple(map(clean_label, names))
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{file}: the class {double[0]!r} stands there twice")
    return names
