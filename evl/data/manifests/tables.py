"""The rows of a list of videos: CSV, Parquet, or the original release's text list."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

from evl.data.manifests.columns import REQUIRED, refuse_other_names, wanted_columns
from evl.data.manifests.labels import class_number, clean_label, is_empty_cell, looks_empty
from evl.data.manifests.listing import is_video_name
from evl.data.manifests.split_names import one_meaning, read_split
from evl.data.manifests.text import read_text
from evl.data.manifests.text_table import Rows, read_delimited, read_list, read_paths
from evl.errors import DataError
from evl.runtime.files import expand_home
from evl.types import Sample


def read_table(path: Path, root: Path) -> tuple[dict[str, tuple[Sample, ...]], tuple[str, ...]]:
    """(samples by split, what is odd about the list, a line each); relative paths are relative to ``root``. Raises
    DataError for what is no such list."""
    rows, num_comments = _read_rows(path, root)
    splits = _rows_to_splits(path, rows, root)
    notices = _odd_labels(path, splits)
    if num_comments:
        lines = "1 line that begins with # is" if num_comments == 1 else f"{num_comments} lines that begin with # are"
        notices.append(f"{path}: {lines} taken for comment{'s' * (num_comments > 1)}, not for videos")
    return splits, tuple(notices)


def read_videos(path: Path, root: Path) -> tuple[Sample, ...]:
    """The rows of a list that needs no labels, in their order, those of all splits; each is a video, or the part of one
    between its times. Raises DataError as ``read_table``."""
    rows, _ = _read_rows(path, root, labeled=False)
    return tuple(Sample(file, None, start, end) for file, start, end in (_place(path, *row, root) for row in rows))


def _read_rows(path: Path, root: Path, *, labeled: bool = True) -> tuple[Rows, int]:
    required = REQUIRED if labeled else REQUIRED[:1]
    if is_video_name(path.name):
        raise DataError(f"{path}: a video; expected a folder of videos, or a list of them (.csv, .parquet, .txt)")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path, required), 0
        text = read_text(path)
        if path.suffix.lower() in (".csv", ".tsv", ".tab"):
            return read_delimited(path, text, required)
        return (read_list if labeled else read_paths)(path, text, root)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_parquet(path: Path, required: Collection[str]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    columns = wanted_columns(path, table.column_names, required)
    rows = list(enumerate(table.to_pylist(), 1))
    refuse_other_names(path, table.column_names, rows)
    return [(number, {name: row[column] for name, column in columns.items()}) for number, row in rows]


def _rows_to_splits(path: Path, rows: Rows, root: Path) -> dict[str, tuple[Sample, ...]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    meaning = _meaning(path, rows)
    group_of: dict[str, str] = {}
    without_group: int | None = None
    for number, row in rows:
        file, start, end = _place(path, number, row, root)
        label = _text(row["label"])
        _refuse_empty(path, number, "label", label)
        if is_video_name(label):
            raise DataError(
                f"{path}, row {number}: the label {label!r} is a video's name, and the path is {_text(row['path'])!r}; "
                "are the columns exchanged, or is a comma in a path not within double quotes?"
            )
        split = "all" if is_empty_cell(row.get("split")) else meaning[clean_label(row["split"])]
        sample = Sample(file, clean_label(label), start, end, _group(row.get("group")))
        groups[split].append(sample)
        if sample.group is None:
            without_group = without_group or number
        elif (other := group_of.setdefault(sample.path, sample.group)) != sample.group:
            raise DataError(f"{path}, row {number}: group {sample.group!r}, but above the same file is in {other!r}")
    if group_of and without_group:
        raise DataError(f"{path}, row {without_group}: group is empty, but other rows have one; give every row a group")
    if "all" in groups and len(groups) > 1:
        raise DataError(f"{path}: some rows have a split and some have none")
    return {split: tuple(group) for split, group in groups.items()}


def _place(path: Path, number: int, row: dict, root: Path) -> tuple[str, float | None, float | None]:
    """(path of a row's video, start, end in seconds)."""
    name = _text(row["path"])
    _refuse_empty(path, number, "path", name)
    if "\0" in name:
        raise DataError(f"{path}, row {number}: the path {name!r} has a zero byte")
    start, end = (_seconds(path, number, key, row.get(key)) for key in ("start_seconds", "end_seconds"))
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{path}, row {number}: ends at {end:g} s, before it starts")
    return os.path.normpath(os.path.join(root, expand_home(name))), start, end


def _refuse_empty(path: Path, number: int, key: str, value: str) -> None:
    if is_empty_cell(value):
        shown = f" ({value.strip()!r})" if value.strip() else ""
        raise DataError(f"{path}, row {number}: {key} is empty{shown}")


def _text(value) -> str:
    if value is None or value != value:  # pandas writes NaN for what is empty
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _group(value) -> str | None:
    """A cell's text, cleaned as labels are; 3.0, as pandas writes whole numbers, is 3."""
    if is_empty_cell(value):
        return None
    text = clean_label(_text(value))
    return text.partition(".")[0] if class_number(text) is not None else text


def _meaning(path: Path, rows: Rows) -> dict[str, str]:
    """What each text in the column ``split`` means: train, val, test, or all."""
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
        meaning = one_meaning({word for word in words.values() if word != "all"})
    except DataError as error:
        raise DataError(f"{path}: {error}; write train, val or test") from None
    return {text: meaning.get(word, "all") for text, word in words.items()}


def _odd_labels(path: Path, splits: dict[str, Collection[Sample]]) -> list[str]:
    """A line on each label that may stand for an empty cell."""
    counts = Counter(sample.label for group in splits.values() for sample in group)
    return [
        f"{path}: {count} {'row has' if count == 1 else 'rows have'} the label {label!r}, which is taken for a class "
        "of that name; if it means that there is no label, remove the row"
        for label, count in sorted(counts.items())
        if looks_empty(label)
    ]


def _seconds(path: Path, number: int, key: str, value) -> float | None:
    if is_empty_cell(value):
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"{path}, row {number}: {key} is {value!r}, expected seconds from 0")
    return seconds
