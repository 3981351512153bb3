"""The scores of a timeline's windows → segments: labeled stretches of time. A pure function, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from evl.errors import ConfigError, nearest
from evl.types import BACKGROUND

Threshold = float | Mapping[str, float]
USUAL_ON = 0.5
OFF_SHARE = 0.6  # ``off`` is this share of ``on`` if it is not given


@dataclass(frozen=True)
class Segment:
    """A stretch of time with a label. ``score``: the mean score of its windows. Times are in seconds of the video."""

    label: str
    start_seconds: float
    end_seconds: float
    score: float


@dataclass(frozen=True)
class SegmentRules:
    """How segments are found. Raises ConfigError for values that cannot be.

    Args:
        on, off: two thresholds. A segment of a class is a run of windows with scores of at least ``off``, one of which
            has at least ``on``. Each is a number for all classes, or a dict of class names, which may name only some:
            for the others ``on`` is 0.5. Where ``off`` is not given, it is 0.6 · ``on``.
        smooth: each score becomes the mean of so many windows, with the window in the middle; 1: no smoothing.
        merge_seconds: segments of a class with a gap of at most so many seconds become one.
        min_seconds: segments that are shorter, after merging, are left out.
    """

    on: Threshold = USUAL_ON
    off: Threshold | None = None
    smooth: int = 1
    merge_seconds: float = 0.0
    min_seconds: float = 0.0

    def __post_init__(self):
        for name in ("on", "off"):
            value = getattr(self, name)
            for one in value.values() if isinstance(value, Mapping) else () if value is None else (value,):
                if not 0 <= one <= 1:
                    raise ConfigError(f"`{name}={one:g}`: expected a score from 0 to 1")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ConfigError(f"`smooth={self.smooth}`: expected an odd number of windows, such as 3; 1 for none")
        for name in ("merge_seconds", "min_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"`{name}={getattr(self, name):g}`: expected seconds, at least 0")

    def thresholds(self, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(on, off), each (Y). Raises ConfigError for a name that is no class, or ``off`` above ``on``."""
        on = _of_classes("on", self.on, class_names, np.full(len(class_names), USUAL_ON))
        off = _of_classes("off", self.off, class_names, OFF_SHARE * on)
        for name, high, low in zip(class_names, on.tolist(), off.tolist(), strict=True):
            if low > high:
                raise ConfigError(f"`off={low:g}` is above `on={high:g}` (class {name}): expected at most as much")
        return on, off

    def changed(self, given: Mapping[str, object]) -> SegmentRules:
        """The rules with the fields ``given`` in place of their own. A new ``on`` comes with a new ``off``; thresholds
        of some classes leave those of the others as they are."""
        given, on = dict(given), given.get("on")
        if isinstance(on, Mapping) and isinstance(self.on, Mapping):
            given["on"] = {**self.on, **on}
            if given.get("off") is None and isinstance(self.off, Mapping):
                given["off"] = {name: level for name, level in self.off.items() if name not in on}
        elif on is not None:
            given = {"off": None, **given}
        return replace(self, **given)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> SegmentRules:
        """Rules from a file. Raises ConfigError for what are none."""
        names = [one.name for one in fields(cls)]
        try:
            if unknown := set(content) - set(names):
                raise ConfigError(f"rules of segments: {min(unknown)!r:.60} is none of {', '.join(names)}")
            return cls(**content)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"rules of segments: {error}") from None

    def only(self, class_names: Sequence[str]) -> SegmentRules:
        """The rules without the thresholds of other classes."""
        thresholds = {
            name: {label: level for label, level in value.items() if label in class_names}
            for name in ("on", "off")
            if isinstance(value := getattr(self, name), Mapping)
        }
        return replace(self, **thresholds)


def _of_classes(name: str, given: Threshold | None, class_names: Sequence[str], usual: np.ndarray) -> np.ndarray:
    if given is None:
        return usual
    if not isinstance(given, Mapping):
        return np.full(len(class_names), float(given))
    values = usual.copy()
    for label, value in given.items():
        if label not in class_names:
            raise ConfigError(f"`{name}`: there is no class {label!r}{nearest(label, class_names)}")
        values[list(class_names).index(label)] = value
    return values


def find_segments(
    times: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    rules: SegmentRules = SegmentRules(),
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    gaps: Sequence[tuple[float, float]] = (),
) -> tuple[Segment, ...]:
    """Finds the segments of all classes, by their start, and then in the order of classes.

    ``times`` (n): the middle of each window in seconds, rising. ``scores`` (n,Y). A window stands for the time up to
    half-way to its neighbors; the first one from ``start_seconds`` on, the last one until ``end_seconds`` (None: half a
    step beyond it). ``gaps``: (start, end) of stretches whose windows are missing, as damaged ones. They are no part of
    a segment, unless ``merge_seconds`` joins what is before and after them. The class ``background`` has no segments.
    """
    times, scores = np.asarray(times, np.float64), np.asarray(scores, np.float64)
    if scores.shape != (len(times), len(class_names)):
        raise ConfigError(f"scores of shape {scores.shape}: expected {(len(times), len(class_names))}")
    on, off = rules.thresholds(class_names)
    if not len(times):
        return ()
    parts = _unbroken(times, gaps)
    scores = smoothed_scores(times, scores, rules.smooth, gaps)
    starts, ends = _borders(times, start_seconds, end_seconds, gaps)
    found = []
    for y, label in enumerate(class_names):
        if label == BACKGROUND:
            continue
        for windows in _merged(_runs(scores[:, y], parts, on[y], off[y]), starts, ends, rules.merge_seconds):
            start, end = float(starts[windows[0]]), float(ends[windows[-1]])
            if end - start >= rules.min_seconds and end > start:
                found.append((start, y, Segment(label, start, end, float(scores[windows, y].mean()))))
    return tuple(segment for _, _, segment in sorted(found, key=lambda one: one[:2]))


def smoothed_scores(
    times: np.ndarray, scores: np.ndarray, count: int, gaps: Sequence[tuple[float, float]] = ()
) -> np.ndarray:
    """``smoothed``, but no mean reaches over one of the ``gaps``."""
    if count == 1 or not len(times):
        return scores
    return np.concatenate([smoothed(scores[part], count) for part in _unbroken(times, gaps)])


def smoothed(scores: np.ndarray, count: int) -> np.ndarray:
    """(n,Y) -> the mean of ``count`` windows around each; at the ends, of those that there are."""
    sums, counts = np.zeros_like(scores), np.zeros((len(scores), 1))
    for shift in range(-(count // 2), count // 2 + 1):
        if abs(shift) < len(scores):
            here = slice(max(0, -shift), len(scores) - max(0, shift))
            sums[here] += scores[max(0, shift) : len(scores) - max(0, -shift)]
            counts[here] += 1
    return sums / counts


def _unbroken(times: np.ndarray, gaps: Sequence[tuple[float, float]]) -> list[range]:
    """Runs of windows without a gap between them."""
    cuts = {int(np.searchsorted(times, start)) for start, _ in gaps} - {0, len(times)}
    return [range(a, b) for a, b in pairwise([0, *sorted(cuts), len(times)])]


def _borders(times: np.ndarray, start: float | None, end: float | None, gaps: Sequence[tuple[float, float]]):
    """(starts, ends) of the time that each window stands for."""
    half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.0
    between = (times[:-1] + times[1:]) / 2
    starts = np.array([times[0] - half if start is None else start, *between])
    ends = np.array([*between, times[-1] + half if end is None else end])
    for first, last in gaps:
        place = int(np.searchsorted(times, first))
        if place < len(times):
            starts[place] = last
        if place > 0:
            ends[place - 1] = first
    return starts, ends


def _runs(scores: np.ndarray, parts: list[range], on: float, off: float) -> list[list[int]]:
    """The numbers of the windows of each run with at least ``off`` everywhere, and at least ``on`` somewhere."""
    found = []
    for part in parts:
        above = np.flatnonzero(scores[part.start : part.stop] >= off) + part.start
        for run in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1):
            if len(run) and scores[run].max() >= on:
                found.append(run.tolist())
    return found


def _merged(runs: list[list[int]], starts: np.ndarray, ends: np.ndarray, gap: float) -> list[list[int]]:
    merged: list[list[int]] = []
    for run in runs:
        if merged and gap > 0 and starts[run[0]] - ends[merged[-1][-1]] <= gap:
            merged[-1] += run
        else:
            merged.append(run)
    return merged
