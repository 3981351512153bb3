"""Reads the rows of a list of videos: CSV, Parquet, or a text list as in the original release."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

from evl.data.manifests import Manifest
from evl.data.manifests.columns import REQUIRED, Rows, select_columns
from evl.data.manifests.labels import class_number, is_empty_cell, looks_empty
from evl.data.manifests.listing import is_video_name, still_missing
from evl.data.manifests.split_names import read_split, split_meanings
from evl.data.manifests.text_table import read_delimited, read_list, read_paths, read_text
from evl.errors import DataError, one_line, plural
from evl.runtime.files import expand_home
from evl.runtime.text import clean_label
from evl.types import Sample


def read_table(path: Path, root: Path) -> Manifest:
    """Returns the samples of a list. Relative paths are relative to ``root``. Raises DataError if it cannot be read."""
    rows, num_comments = _read_rows(path, root)
    splits = _rows_to_splits(path, rows, root)
    notices = _label_notices(path, splits)
    if num_comments:
        notices.append(f"{path}: ignored {plural(num_comments, 'comment line')} (with # in front)")
    missing = still_missing([sample for group in splits.values() for sample in group])
    return Manifest(str(path), splits, missing=missing, notices=tuple(notices))


def read_videos(path: Path, root: Path) -> tuple[Sample, ...]:
    """Returns the rows of all splits of a list, in order and without labels. A row with times is a part of a video.
    Raises DataError as ``read_table``."""
    rows, _ = _read_rows(path, root, labeled=False)
    return tuple(Sample(file, None, start, end) for file, start, end in (_locate(path, *row, root) for row in rows))


def _read_rows(path: Path, root: Path, *, labeled: bool = True) -> tuple[Rows, int]:
    required = REQUIRED if labeled else REQUIRED[:1]
    if is_video_name(path.name):
        raise DataError(f"{path} is a video; expected a folder of videos, or a list of them (.csv, .parquet, .txt)")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path, required), 0
    text = read_text(path)
    if path.suffix.lower() in (".csv", ".tsv", ".tab"):
        return read_delimited(path, text, required)
    return (read_list if labeled else read_paths)(path, text, root)


def _read_parquet(path: Path, required: Collection[str]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        names, content = table.column_names, table.to_pylist()
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file ({one_line(error)})") from None
    rows = select_columns(path, names, list(enumerate(content, 1)), required)
    for number, row in rows:
        for column, value in row.items():
            if isinstance(value, list | dict):
                raise DataError(f"{path}, row {number}: {column} is {str(value)[:60]!r}, expected one value")
    return rows


def _rows_to_splits(path: Path, rows: Rows, root: Path) -> dict[str, tuple[Sample, ...]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    meaning = _split_meanings(path, rows)
    group_of: dict[str, str] = {}
    without_group: int | None = None
    for number, row in rows:
        file, start, end = _locate(path, number, row, root)
        label = _text(row["label"])
        _refuse_empty(path, number, "label", label)
        if is_video_name(label):
            raise DataError(
                f"{path}, row {number}: the label {label!r} is a video's name, and the path is {_text(row['path'])!r}; "
                "the columns may be swapped, or a path with a comma may need double quotes around it"
            )
        split = "all" if is_empty_cell(row.get("split")) else meaning[clean_label(row["split"])]
        sample = Sample(file, clean_label(label), start, end, _group(row.get("group")))
        groups[split].append(sample)
        if sample.group is None:
            without_group = without_group or number
        elif (other := group_of.setdefault(sample.path, sample.group)) != sample.group:
            raise DataError(
                f"{path}, row {number}: group {sample.group!r}, but a row above has the same file in group {other!r}"
            )
    if group_of and without_group:
        raise DataError(f"{path}, row {without_group}: group is empty, but other rows have one; give every row a group")
    if "all" in groups and len(groups) > 1:
        raise DataError(f"{path}: some rows have a split and some have none; give every row a split")
    return {split: tuple(group) for split, group in groups.items()}


def _locate(path: Path, number: int, row: dict, root: Path) -> tuple[str, float | None, float | None]:
    """Returns (path of a row's video, start in seconds, end in seconds)."""
    name = _text(row["path"])
    _refuse_empty(path, number, "path", name)
    if "\0" in name:
        raise DataError(f"{path}, row {number}: the path {name!r} contains a zero byte")
    start, end = (_seconds(path, number, key, row.get(key)) for key in ("start_seconds", "end_seconds"))
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{path}, row {number}: the end, {end:g} s, is not after the start, {start or 0:g} s")
    return os.path.normpath(os.path.join(root, expand_home(name))), start, end


def _refuse_empty(path: Path, number: int, key: str, value: str) -> None:
    if is_empty_cell(value):
        shown = f" ({value.strip()!r})" if value.strip() else ""
        raise DataError(f"{path}, row {number}: {key} is empty{shown}")


def _text(value) -> str:
    if value is None or value != value:  # pandas writes NaN for an empty cell
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _group(value) -> str | None:
    """Returns the group in a cell, cleaned like a label; 3.0 (as pandas writes whole numbers) becomes 3."""
    if is_empty_cell(value):
        return None
    text = clean_label(_text(value))
    return text.partition(".")[0] if class_number(text) is not None else text


def _split_meanings(path: Path, rows: Rows) -> dict[str, str]:
    """Returns text in the column ``split`` → train, val, test, or all."""
    first_rows: dict[object, int] = {}
    for number, row in rows:
        first_rows.setdefault(row.get("split"), number)
    words = {}
    for value, number in first_rows.items():
        if is_empty_cell(value) or (text := clean_label(value)) in words:
            continue
        reading = read_split(text)
        if text.lower() == "all":
            words[text] = "all"
        elif reading is None or reading.rest:
            raise DataError(f"{path}, row {number}: split {text!r}, expected train, val or test")
        else:
            words[text] = reading.word
    try:
        meaning = split_meanings({word for word in words.values() if word != "all"})
    except DataError as error:
        raise DataError(f"{path}: {error}; write train, val or test") from None
    return {text: meaning.get(word, "all") for text, word in words.items()}


def _label_notices(path: Path, splits: dict[str, Collection[Sample]]) -> list[str]:
    counts = Counter(sample.label for group in splits.values() for sample in group)
    return [
        f"{path}: {count} {'row has' if count == 1 else 'rows have'} the label {label!r}, which is read as a class of "
        "that name; if it means that there is no label, remove the row"
        for label, count in sorted(counts.items())
        if looks_empty(label)
    ]


def _seconds(path: Path, number: int, key: str, value) -> float | None:
    if is_empty_cell(value):
        return None
    try:
        seconds = float(value)
    except (ValueError, TypeError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"{path}, row {number}: {key} is {value!r}, expected seconds, 0 or more")
    return seconds
