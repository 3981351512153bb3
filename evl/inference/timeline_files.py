"""Timelines on disk: ``scores.parquet`` has the scores of all windows, ``segments.csv`` is a manifest of segments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evl.data.manifests.columns import COLUMNS
from evl.errors import DataError, one_line
from evl.inference.segments import SegmentRules
from evl.inference.timeline import Gap, Timeline
from evl.models.classifier import checked_class_names
from evl.runtime.files import expand_home, require_plain_file, write_atomically, write_table

SCORES, SEGMENTS = "scores.parquet", "segments.csv"
FORMAT_VERSION = 1
_KEY = b"evl.timeline"  # of the metadata of the Parquet file
_COLUMNS = ("time_seconds", "frames", "scores")
_ENDS = "end_seconds"  # of windows, where they are known


def write_segments(path: str | Path, timelines: Iterable[Timeline]) -> None:
    """Writes the segments as a manifest that ``evl.read_manifest`` reads: path, label, start_seconds, end_seconds; and
    score. Paths are absolute. Raises SaveError."""
    rows = [
        (
            os.path.abspath(line.path),
            one.label,
            f"{one.start_seconds:.6f}",
            f"{one.end_seconds:.6f}",
            f"{one.score:.6f}",
        )
        for line in timelines
        for one in line.segments
    ]
    write_table(path, [(*COLUMNS[:4], "score"), *rows])


def write_scores(path: str | Path, line: Timeline) -> None:
    """Writes the time, frames and scores (in double) of each window as Parquet; the rest is in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet

    facts = {
        "format_version": FORMAT_VERSION,
        "path": os.path.abspath(line.path),
        "class_names": line.class_names,
        "rules": asdict(line.rules),
        "start_seconds": line.start_seconds,
        "end_seconds": line.end_seconds,
        "frames_per_second": line.frames_per_second,
        "damaged": line.damaged,
        "protocol": line.protocol,
    }
    columns = [
        pa.array(line.times, pa.float64()),
        _lists(line.frames, pa.int64()),
        _lists(line.scores, pa.float64()),
    ]
    table = pa.table(columns, names=list(_COLUMNS))
    if line.ends is not None:
        table = table.append_column(_ENDS, pa.array(line.ends, pa.float64()))
    table = table.replace_schema_metadata({_KEY: json.dumps(facts).encode()})
    with write_atomically(path) as file:
        pyarrow.parquet.write_table(table, file)


def _lists(values: np.ndarray, kind):
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), values.shape[1])


def names_of(lines: Sequence[Timeline]) -> list[str]:
    """A name for the folder of each timeline: that of its file, with a number where several would be the same."""
    return unique_names([os.path.basename(os.path.splitext(os.path.abspath(one.path))[0]) or "video" for one in lines])


def unique_names(stems: Iterable[str]) -> list[str]:
    """The names, with a number where several would be the same."""
    names: list[str] = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in map(str.casefold, names):
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def read_timeline(path: str | Path, changed: Mapping[str, Any] = MappingProxyType({})) -> Timeline:
    """The timeline of a file that ``write_scores`` wrote, with the segments that its rules find.

    ``changed``: fields of SegmentRules that take the place of the file's own; a new ``on`` comes with a new ``off``.
    Raises ConfigError for rules that do not go together, DataError if the file cannot be read, or is not such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet

    path = expand_home(Path(path))
    try:
        require_plain_file(path)
        table = pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from None
    facts = (table.schema.metadata or {}).get(_KEY)
    if facts is None or not set(_COLUMNS) <= set(table.column_names):
        raise DataError(f"{path}: has no scores of a timeline; expected a {SCORES} that evl timeline wrote")
    try:
        facts = json.loads(facts)
        if facts["format_version"] > FORMAT_VERSION:
            raise DataError(f"{path}: was written by a newer evl; install it, or make the timeline again")
        line = Timeline(
            str(facts["path"]),
            *_columns(table),
            checked_class_names(facts["class_names"]),
            start_seconds=float(facts["start_seconds"]),
            end_seconds=float(facts["end_seconds"]),
            frames_per_second=float(facts.get("frames_per_second", 0)),
            damaged=tuple(Gap(float(start), float(end), str(reason)) for start, end, reason in facts["damaged"]),
            protocol=str(facts["protocol"]),
            ends=_ends(table),
        )
        own = SegmentRules(**facts["rules"])
        line = line.with_rules(own)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({one_line(error)}); make the timeline again") from None
    return line.with_rules(own.changed(changed))


def _ends(table) -> np.ndarray | None:
    if _ENDS not in table.column_names:
        return None
    ends = table.column(_ENDS).to_numpy().astype(np.float64)
    if not np.isfinite(ends).all():
        raise ValueError("its columns are not those of windows")
    return ends


def _columns(table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (n), scores (n,Y) and frames (n,T). Raises ValueError for columns of other kinds, or empty cells."""
    times = table.column("time_seconds").to_numpy().astype(np.float64)
    scores, frames = (np.array(table.column(name).to_pylist()) for name in ("scores", "frames"))
    is_right = scores.ndim == frames.ndim == 2 and frames.dtype == np.int64 and scores.dtype == np.float64
    if not is_right or not np.isfinite(times).all() or not np.isfinite(scores).all() or (np.diff(times) < 0).any():
        raise ValueError("its columns are not those of windows")
    return times, scores, frames
