"""Segments along time: what is labeled and what is found in each stretch between two borders. Only arithmetic.

A **track** has one label at a time. Of found segments that overlap, the one with the best score is in the track.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from evl.inference.segments import Segment

Span = tuple[float, float]


def pieces(segments: Sequence[Segment], borders: Sequence[float], start: float, end: float) -> Iterator[tuple]:
    """(start, end, the segments there) of each stretch between two borders, from ``start`` to ``end`` in order.

    Borders are those of the segments, and the ones that are given.
    """
    every = {*borders, *(time for one in segments for time in (one.start_seconds, one.end_seconds))}
    cuts = [start, *sorted(time for time in every if start < time < end), end]
    waiting = sorted(segments, key=lambda one: one.start_seconds)
    place, here = 0, []
    for first, last in pairwise(cuts):
        while place < len(waiting) and waiting[place].start_seconds <= first:
            here.append(waiting[place])
            place += 1
        here = [one for one in here if one.end_seconds > first]
        if last > first:
            yield first, last, tuple(here)


def best_of(segments: Sequence[Segment]) -> Segment:
    """The segment with the best score; of equal scores, the one that began first."""
    return min(segments, key=lambda one: (-one.score, one.start_seconds))


def track_of(segments: Sequence[Segment], start: float, end: float) -> list[Segment]:
    """The segments of a track: they do not overlap, and neighbors without a gap have different labels."""
    track: list[Segment] = []
    for first, last, here in pieces(segments, (), start, end):
        if not here:
            continue
        one = best_of(here)
        if track and track[-1].label == one.label and track[-1].end_seconds == first:
            first = track.pop().start_seconds
        track.append(Segment(one.label, first, last, one.score))
    return track


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """The segments by their start, in which those of one label that touch or overlap are one."""
    whole: list[Segment] = []
    latest: dict[str, int] = {}  # label -> place of its last segment
    for one in sorted(segments, key=lambda one: (one.start_seconds, one.end_seconds)):
        place = latest.get(one.label)
        if place is not None and whole[place].end_seconds >= one.start_seconds:
            before = whole[place]
            end = max(before.end_seconds, one.end_seconds)
            whole[place] = Segment(one.label, before.start_seconds, end, before.score)
        else:
            latest[one.label] = len(whole)
            whole.append(one)
    return whole


def seconds_by_label(
    truth: Sequence[Segment], found: Sequence[Segment], labels: Sequence[str], span: Span, gaps: Sequence[Span] = ()
) -> tuple[np.ndarray, float]:
    """(``seconds[y, z]``: how long the label is y and the track of what was found has z; the seconds left out).

    ``seconds`` is (Y+1, Y+1). Its last row and column are for no label, and labels that ``labels`` does not have. Time
    with several different labels, which has no single right answer, is left out. Time in ``gaps`` is part of neither.
    """
    place = {label: y for y, label in enumerate(labels)}
    seconds, left_out = np.zeros((len(labels) + 1,) * 2), 0.0
    is_true = set(map(id, truth))
    borders = [time for gap in gaps for time in gap]
    for start, end, here in pieces([*truth, *found], borders, *span):
        if any(first <= start < last for first, last in gaps):
            continue
        right = {one.label for one in here if id(one) in is_true}
        said = [one for one in here if id(one) not in is_true]
        if len(right) > 1:
            left_out += end - start
            continue
        row = place.get(right.pop(), len(labels)) if right else len(labels)
        column = place.get(best_of(said).label, len(labels)) if said else len(labels)
        seconds[row, column] += end - start
    return seconds, left_out


def overlaps(found: Sequence[Segment], truth: Sequence[Segment]) -> np.ndarray:
    """(n,m) temporal IoU: the time that two segments share, as a share of the time that at least one of them has."""
    a = np.array([(one.start_seconds, one.end_seconds) for one in found]).reshape(-1, 1, 2)
    b = np.array([(one.start_seconds, one.end_seconds) for one in truth]).reshape(1, -1, 2)
    shared = (np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])).clip(0)
    whole = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
