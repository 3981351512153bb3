"""The rows of a list of videos: CSV, Parquet, or the original release's text list."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from evl.data.listing import SPLIT_NAMES, is_video_name
from evl.errors import DataError
from evl.types import Sample

COLUMNS = ("path", "label", "start_seconds", "end_seconds", "split")


def read_table(path: Path, root: Path) -> dict[str, tuple[Sample, ...]]:
    """Samples by split; relative paths are relative to ``root``. Raises DataError for what is no such list."""
    return _rows_to_splits(path, _read_rows(path), root)


def _read_rows(path: Path) -> list[dict]:
    if is_video_name(path.name):
        raise DataError(f"{path}: a video; expected a folder of videos, or a list of them (.csv, .parquet, .txt)")
    try:
        if path.suffix.lower() == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                _require_columns(path, reader.fieldnames or [])
                return list(reader)
        if path.suffix.lower() == ".parquet":
            import pyarrow
            from pyarrow import parquet

            try:
                table = parquet.read_table(path)
            except pyarrow.ArrowException as error:
                raise DataError(f"{path}: not a readable Parquet file ({error})") from None
            _require_columns(path, table.column_names)
            return table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()
        return _read_text_list(path)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; expected .csv, .parquet, or lines of 'path label'") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_text_list(path: Path) -> list[dict]:
    """The release's list: ``path label`` lines; the label is what follows the last blank, so paths may have some."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=1)
        if len(parts) != 2:
            raise DataError(f"{path}, line {number}: {line.strip()!r} is not 'path label'")
        rows.append({"path": parts[0], "label": parts[1]})
    return rows


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise DataError(
            f"{path}: no column {' or '.join(map(repr, missing))}; the first line must name the columns path,label"
            f"[,start_seconds,end_seconds][,split], but it has {', '.join(columns) or 'nothing'}"
        )


def _rows_to_splits(path: Path, rows: list[dict], root: Path) -> dict[str, tuple[Sample, ...]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for number, row in enumerate(rows, 2):
        name, label = (str(row[key]) if row[key] is not None else "" for key in ("path", "label"))
        label = label.strip()
        if not name.strip() or not label:
            raise DataError(f"{path}, row {number}: {'label' if name.strip() else 'path'} is empty")
        if "\0" in name:
            raise DataError(f"{path}, row {number}: the path {name!r} has a zero byte")
        split = str(row.get("split") or "all").strip().lower()
        if split != "all" and split not in SPLIT_NAMES:
            raise DataError(f"{path}, row {number}: split {split!r}, expected train, val or test")
        start, end = (_seconds(path, number, key, row.get(key)) for key in ("start_seconds", "end_seconds"))
        if end is not None and end <= (start or 0.0):
            raise DataError(f"{path}, row {number}: ends at {end:g} s, before it starts")
        groups[SPLIT_NAMES.get(split, "all")].append(Sample(os.path.normpath(root / name), label, start, end))
    if "all" in groups and len(groups) > 1:
        raise DataError(f"{path}: some rows have a split and some have none")
    return {split: tuple(group) for split, group in groups.items()}


def _seconds(path: Path, number: int, key: str, value) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"{path}, row {number}: {key} is {value!r}, expected seconds from 0")
    return seconds
