"""Rows of a manifest → what each video shows when."""

from __future__ import annotations

import os
from collections.abc import Sequence

from evl.errors import DataError
from evl.evaluation.evaluate import labels_of
from evl.inference.segments import Segment
from evl.inference.timeline import Timeline
from evl.runtime.text import clean_label
from evl.types import BACKGROUND, Sample


def by_video(samples: Sequence[Sample]) -> dict[str, tuple[Sample, ...]]:
    """The rows of each file, by its path."""
    rows: dict[str, list[Sample]] = {}
    for sample in samples:
        rows.setdefault(os.path.abspath(sample.path), []).append(sample)
    return {path: tuple(group) for path, group in rows.items()}


def check_labels(samples: Sequence[Sample], class_names: Sequence[str]) -> None:
    """Raises DataError for a label that is none of the model's class names, and not ``background``."""
    events = [one for one in samples if one.label is None or clean_label(one.label) != BACKGROUND]
    labels_of(events, class_names)
    if not events:
        raise DataError("no segment has a label of an event, so there is nothing to judge a timeline by")


def true_segments(line: Timeline, rows: Sequence[Sample]) -> tuple[Segment, ...]:
    """The labeled segments of a video, without background, by their start.

    A row without times means the whole file. What lies past the file's end is cut. Raises DataError for a row that is
    not in the file at all.
    """
    segments = []
    for row in rows:
        start = line.start_seconds if row.start_seconds is None else row.start_seconds
        end = line.end_seconds if row.end_seconds is None else min(row.end_seconds, line.end_seconds)
        if end <= start:
            raise DataError(
                f"{row.name}: the file ends at {line.end_seconds:.2f} s, before this segment starts; correct its times"
            )
        if clean_label(row.label) != BACKGROUND:
            segments.append(Segment(clean_label(row.label), float(start), float(end), 1.0))
    return tuple(sorted(segments, key=lambda one: (one.start_seconds, one.end_seconds)))
