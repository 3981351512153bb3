"""The header of a table of videos: which columns are wanted, and what people call them."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from evl.data.manifests.labels import clean_label, is_empty_cell
from evl.data.manifests.listing import is_video_name
from evl.data.manifests.split_names import read_split
from evl.errors import DataError

COLUMNS = ("path", "label", "start_seconds", "end_seconds", "split", "group")
REQUIRED = COLUMNS[:2]
DELIMITERS = ",;\t"
# other names, which are not read: a column may hold something else under them
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
    """A column's name as it is compared: ``Path``, `` Label``, ``Start Seconds``."""
    return re.sub(r"[\s-]+", "_", clean_label(column)).casefold()


def is_header(line: str, required: Collection[str]) -> bool:
    """Whether a line names the ``required`` columns, between commas, semicolons or tabs."""
    return set(required) <= set(map(plain_name, header_cells(line, required)[1]))


def header_cells(line: str, required: Collection[str]) -> tuple[str, list[str]]:
    """(delimiter, cells) of a header line: the delimiter between the ``required`` names, else the most frequent."""
    options = []
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        options.append((set(required) <= set(map(plain_name, cells)), len(cells), delimiter, cells))
    _, _, delimiter, cells = max(options, key=lambda option: option[:2], default=(False, 0, ",", []))
    return delimiter, cells


def wanted_columns(path: Path, columns: Sequence[str], required: Collection[str] = REQUIRED) -> dict[str, str]:
    """The column of each wanted name that there is. DataError where a ``required`` one is lacking, or one is there
    twice."""
    found: dict[str, str] = {}
    for column in columns:
        if (name := plain_name(column)) in COLUMNS:
            if name in found:
                raise DataError(f"{path}: the column {name!r} is there twice; rename or remove one")
            found[name] = column
    if missing := [name for name in required if name not in found]:
        shown = ", ".join(map(str, columns)) or "nothing"
        raise DataError(
            f"{path}: no column {' or '.join(map(repr, missing))}; the first line must name the columns "
            f"{','.join(required)}[,start_seconds,end_seconds][,split][,group], but it has {shown}"
            f"{rename_hint(columns, missing)}"
        )
    return found


def rename_hint(columns: Iterable[str], missing: Collection[str]) -> str:
    """The end of a sentence on a header without ``missing``: what to rename, or that there is no header."""
    columns = list(map(str, columns))
    pairs = [(column, name) for column in columns if (name := OTHER_NAMES.get(plain_name(column))) in missing]
    if pairs:
        return "; rename " + " and ".join(f"{column.strip()!r} to {name!r}" for column, name in pairs)
    if any(is_video_name(column.strip()) for column in columns):
        return "; that looks like a video: put a line with the columns' names in front"
    return ""


def refuse_other_names(path: Path, columns: Iterable[str], rows: Sequence[tuple[int, Mapping]]) -> None:
    """DataError for a column that seems to hold times or splits under another name: ignored, whole videos would get the
    label of a part, and test videos would be trained on."""
    columns = list(columns)
    present = set(map(plain_name, columns))
    for column in columns:
        name = OTHER_NAMES.get(plain_name(column))
        if name is None or name in REQUIRED or name in present:
            continue
        values = {str(row[column]) for _, row in rows if not is_empty_cell(row.get(column))}
        if name == "split" and not any((one := read_split(value)) is not None and not one.rest for value in values):
            continue
        if values:
            unit = ", in seconds from the first frame" if name.endswith("seconds") else ""
            raise DataError(
                f"{path}: the column {column!r} is not read, but looks like {name!r}; rename it to {name!r}{unit}, or "
                "to anything else if it is none"
            )
