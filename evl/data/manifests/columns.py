"""The header of a table of videos: which columns are read, and the names that people use for them."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from evl.data.manifests.labels import is_empty_cell
from evl.data.manifests.listing import is_video_name
from evl.data.manifests.split_names import read_split
from evl.errors import DataError, one_line
from evl.runtime.text import clean_label

COLUMNS = ("path", "label", "start_seconds", "end_seconds", "split", "group")
REQUIRED = COLUMNS[:2]
Rows = list[tuple[int, dict]]  # the line's number in the file, and its cells by column
DELIMITERS = ",;\t"
# names that people use for these columns; they are not read, because such a column may mean something else
_OTHER_NAMES = {
    "path": "file filename file_name filepath file_path fname video videos video_path video_file video_name video_id "
    "videoname videoid vid vid_name clip clip_path clip_name name id uri url src",
    "label": "labels label_name class classes class_name classname class_id category tag tags target action "
    "activity verb y gt annotation",
    "start_seconds": "start start_time start_sec start_secs start_s start_ms start_frame t_start time_start begin "
    "begin_time from onset",
    "end_seconds": "end end_time end_sec end_secs end_s end_ms end_frame stop stop_time stop_frame t_end time_end "
    "to offset",
    "split": "subset set partition phase usage splits dataset",
}
OTHER_NAMES = {other: column for column, others in _OTHER_NAMES.items() for other in others.split()}


def plain_name(column: object) -> str:
    """Returns a column's name for comparison: ``Start Seconds`` becomes ``start_seconds``."""
    return re.sub(r"[\s-]+", "_", clean_label(column)).casefold()


def is_header(line: str, required: Collection[str]) -> bool:
    """Returns whether a line names the ``required`` columns, between commas, semicolons or tabs."""
    return set(required) <= set(map(plain_name, header_cells(line, required)[1]))


def header_cells(line: str, required: Collection[str]) -> tuple[str, list[str]]:
    """Returns the (delimiter, cells) of a header line: the delimiter between the ``required`` names, or else the most
    frequent one."""
    options = []
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        options.append((set(required) <= set(map(plain_name, cells)), len(cells), delimiter, cells))
    _, _, delimiter, cells = max(options, key=lambda option: option[:2], default=(False, 0, ",", []))
    return delimiter, cells


def select_columns(path: Path, columns: Sequence[str], rows: Rows, required: Collection[str] = REQUIRED) -> Rows:
    """Returns the rows of a table with only those cells that evl reads, by the names in ``COLUMNS``.

    Raises DataError if a ``required`` column is missing, if a column appears twice, or if another column seems to hold
    times or splits.
    """
    by_name: dict[str, str] = {}
    for column in columns:
        if (name := plain_name(column)) in COLUMNS:
            if name in by_name:
                raise DataError(f"{path}: the column {name!r} appears twice; rename or remove one")
            by_name[name] = column
    if missing := [name for name in required if name not in by_name]:
        shown = one_line(", ".join(map(str, columns))) if columns else "nothing"
        raise DataError(
            f"{path}: no column {' or '.join(map(repr, missing))}; the first line must name the columns "
            f"{','.join(required)}[,start_seconds,end_seconds][,split][,group], but it has {shown}"
            f"{rename_hint(columns, missing)}"
        )
    _refuse_other_names(path, columns, rows)
    return [(number, {name: row[column] for name, column in by_name.items()}) for number, row in rows]


def rename_hint(columns: Iterable[str], missing: Collection[str]) -> str:
    """Returns the end of an error on a header without the columns ``missing``: what to rename, or to add a header."""
    columns = list(map(str, columns))
    pairs = [(column, name) for column in columns if (name := OTHER_NAMES.get(plain_name(column))) in missing]
    if pairs:
        return "; rename " + " and ".join(f"{column.strip()!r} to {name!r}" for column, name in pairs)
    if any(is_video_name(column.strip()) for column in columns):
        return "; this line seems to be a video: put a line with the names of the columns in front"
    return ""


def _refuse_other_names(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Raises DataError for a column that seems to hold times or splits under another name.

    Without this error, whole videos would get the label of a part, and test videos would be used for training.
    """
    present = set(map(plain_name, columns))
    for column in columns:
        name = OTHER_NAMES.get(plain_name(column))
        if name is None or name in REQUIRED or name in present:
            continue
        values = {str(row[column]) for _, row in rows if not is_empty_cell(row.get(column))}
        if name == "split" and not any((split := read_split(value)) is not None and not split.rest for value in values):
            continue
        if values:
            unit = ", in seconds from the first frame" if name.endswith("seconds") else ""
            raise DataError(
                f"{path}: the column {column!r} is not read, but it seems to be {name!r}; if it is, rename it to "
                f"{name!r}{unit}; if not, give it any other name"
            )
