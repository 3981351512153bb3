"""Kinetics-400, 600 and 700: tables with ``label,youtube_id,time_start,time_end,split``."""

from __future__ import annotations

import math
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, csv_header, read_csv, split_of
from evl.errors import DataError

LOOKED_FOR = "a .csv with the columns label,youtube_id,time_start,time_end,split"
NUM_SPLITS = 1
SUFFIXES = (".csv",)
_COLUMNS = {"youtube_id", "time_start", "time_end"}


def find(files: list[Path]) -> list[Path]:
    """Returns all CSV files with these columns, whatever their names."""
    return [file for file in files if file.suffix.lower() == ".csv" and set(csv_header(file, *_COLUMNS)) >= _COLUMNS]


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads rows for ID_000010_000020.mp4, or else for that part of ID.mp4. Test rows may have no label."""
    rows = []
    for file in found.files:
        for number, line in enumerate(read_csv(file, *_COLUMNS), 2):
            name = (line.get("youtube_id") or "").strip()
            start, end = (_seconds(line.get(key)) for key in ("time_start", "time_end"))
            if not name or start is None or end is None or end <= start:
                raise DataError(f"{file}, row {number}: expected youtube_id,time_start,time_end, got {line}")
            split = split_of(line.get("split") or "") or split_of(file.stem)
            if split is None:
                raise DataError(f"{file}, row {number}: split {line.get('split')!r}, expected train, val or test")
            part = f"{name}_{round(start):06d}_{round(end):06d}.mp4"
            rows.append(Row(split, (line.get("label") or "").strip() or None, part, name, start, end))
    return Annotation(tuple(rows))


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
