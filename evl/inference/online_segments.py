"""The segments of ``find_segments``, found while windows come one by one: when each begins, and when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evl.inference.segments import Segment, SegmentRules
from evl.types import BACKGROUND


@dataclass(frozen=True)
class Begun:
    """A segment that has begun, and whose end is not known yet. ``score``: that of the window that decided it."""

    label: str
    start_seconds: float
    score: float


class SegmentTracker:
    """Finds the segments of ``find_segments``, with the same rules, while scores come. Memory does not grow.

        tracker = SegmentTracker(class_names, rules)
        for time, scores in windows:
            for one in tracker.push(time, scores): ...  # Begun, or a Segment that has ended
        tracker.finish(end_seconds)

    A segment begins as soon as it is certain: when it has a score of at least ``on``, and is ``min_seconds`` long. With
    smoothing that is some windows later. It ends when no later window can join it, so after ``merge_seconds``.

    Parts without a gap are ended by ``end_part`` and begun by ``begin_part``, where ``find_segments`` takes ``gaps``.
    Raises ConfigError for rules that do not go with the classes.
    """

    def __init__(self, class_names: Sequence[str], rules: SegmentRules, *, start_seconds: float = 0.0):
        self.class_names, self.rules = tuple(class_names), rules
        self._on, self._off = rules.thresholds(self.class_names)
        self._on[[name == BACKGROUND for name in self.class_names]] = np.inf  # as ``find_segments``
        self._half = rules.smooth // 2
        self._classes: dict[int, _Class] = {}  # of classes with something open
        self.begin_part(start_seconds)

    def push(self, time: float, scores: np.ndarray) -> list[Begun | Segment]:
        """Takes the next window: its middle in seconds, which never falls, and its scores (Y)."""
        self._recent.append((float(time), np.asarray(scores, np.float64)))
        self._count += 1
        return self._step(len(self._recent) - 1 - self._half) if self._count > self._half else []

    def end_part(self, seconds: float) -> list[Begun | Segment]:
        """Ends the windows that follow each other without a gap: the last one stands for the time up to ``seconds``."""
        found = []
        for place in range(len(self._recent) - min(self._half, self._count), len(self._recent)):
            found += self._step(place)
        self._recent.clear()
        self._count = 0
        for one in self._classes.values():
            one.close(seconds, found)
        return found + self.pass_time(seconds)

    def begin_part(self, seconds: float) -> list[Begun | Segment]:
        """Begins windows after a gap: the first one stands for the time from ``seconds`` on."""
        self._recent: deque[tuple[float, np.ndarray]] = deque(maxlen=self.rules.smooth)
        self._count, self._border, self._before = 0, float(seconds), None
        return self.pass_time(seconds)

    def pass_time(self, seconds: float) -> list[Begun | Segment]:
        """Between two parts: no part begins before ``seconds``, so segments that have ended long before are final."""
        found: list[Begun | Segment] = []
        for one in self._classes.values():
            one.release(seconds, found)
        return self._kept(found)

    def finish(self, seconds: float) -> list[Begun | Segment]:
        """Ends everything at ``seconds``."""
        return self.end_part(seconds) + self.pass_time(float("inf"))

    def _step(self, place: int) -> list[Begun | Segment]:
        """The window at ``place`` of the recent ones, those around which have come."""
        time, scores = self._recent[place]
        if self._half:  # the sum in the order of ``smoothed``
            around = list(self._recent)[max(0, place - self._half) : place + self._half + 1]
            scores = sum((one for _, one in around), np.zeros_like(scores)) / len(around)
        if self._before is not None:
            self._border = (self._before + time) / 2
        self._before = time
        found: list[Begun | Segment] = []
        for y in sorted({*np.flatnonzero(scores >= self._off).tolist(), *self._classes}):
            if y not in self._classes:
                self._classes[y] = _Class(self.class_names[y], self._on[y], self._off[y], self.rules)
            self._classes[y].step(float(scores[y]), self._border, time, found)
        return self._kept(found)

    def _kept(self, found: list[Begun | Segment]) -> list[Begun | Segment]:
        self._classes = {y: one for y, one in self._classes.items() if one.run or one.held}
        return found


@dataclass
class _Piece:
    """A run of windows, or several that were merged. ``is_high``: one has at least ``on``. ``is_told``: its begin."""

    start: float
    end: float = 0.0
    total: float = 0.0
    count: int = 0
    is_high: bool = False
    is_told: bool = False


class _Class:
    """One class. ``run``: the windows of at least ``off`` until now. ``held``: what is closed and may still grow."""

    def __init__(self, label: str, on: float, off: float, rules: SegmentRules):
        self.label, self.on, self.off, self.rules = label, on, off, rules
        self.run: _Piece | None = None
        self.held: _Piece | None = None

    def step(self, score: float, start: float, time: float, found: list[Begun | Segment]) -> None:
        if score < self.off:
            self.close(start, found)
        else:
            self.run = self.run or _Piece(start)
            self.run.total, self.run.count = self.run.total + score, self.run.count + 1
            self.run.is_high |= score >= self.on
        self.release(time if self.run is None else self.run.start, found)
        if self.run is not None and self.run.is_high:
            self._tell(self.held or self.run, time, score, found)

    def close(self, end: float, found: list[Begun | Segment]) -> None:
        """Ends the run at ``end``. It joins what is held, or takes its place."""
        run, self.run = self.run, None
        if run is None or not run.is_high:
            return
        self.release(run.start, found)
        if self.held is not None:
            self.held.total, self.held.count = self.held.total + run.total, self.held.count + run.count
        else:
            self.held = run
        self.held.end = end
        self._tell(self.held, end, self.held.total / self.held.count, found)

    def release(self, next_start: float, found: list[Begun | Segment]) -> None:
        """Ends what is held, if a run that starts at ``next_start`` or later cannot join it."""
        held, longest = self.held, self.rules.merge_seconds
        if held is None or (longest > 0 and next_start - held.end <= longest):
            return
        self.held = None
        if held.is_told:
            found.append(Segment(self.label, held.start, held.end, held.total / held.count))

    def _tell(self, piece: _Piece, until: float, score: float, found: list[Begun | Segment]) -> None:
        """Tells that a piece has begun, once it is certain that it is long enough."""
        if not piece.is_told and until > piece.start and until - piece.start >= self.rules.min_seconds:
            piece.is_told = True
            found.append(Begun(self.label, piece.start, score))
