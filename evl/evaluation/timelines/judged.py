"""Timelines beside what is labeled: all that scores are computed from, for all videos at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from evl.evaluation.timelines.matching import average_precision, counts_of_track, detections, edit_score
from evl.evaluation.timelines.tracks import Span, joined, seconds_by_label, track_of
from evl.inference.segments import Segment, smoothed_scores
from evl.inference.timeline import Timeline

LOOSE = (0.3, 0.4, 0.5, 0.6, 0.7)  # temporal IoU, as for THUMOS
STRICT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # 0.5 to 0.95, as for ActivityNet
THRESHOLDS = tuple(sorted({*LOOSE, *STRICT}))
SHARES = (0.1, 0.25, 0.5)  # temporal IoU of F1@10, F1@25 and F1@50
NUM_DRAWS = 1000  # of videos, for intervals
_AT_ONCE = 1 << 22  # numbers in memory while precisions of several draws are computed


class Event(NamedTuple):
    """A true segment: the seconds from its start until a window says it, and until a live source could. NaN: never."""

    label: str
    delay: float
    live_delay: float


@dataclass(frozen=True, eq=False)
class JudgedVideo:
    """What is labeled and what was found in one video, between ``span``'s times; ``gaps`` have no scores."""

    path: str
    truth: tuple[Segment, ...]
    found: tuple[Segment, ...]
    span: Span
    gaps: tuple[Span, ...] = ()
    events: tuple[Event, ...] = ()

    @classmethod
    def of(cls, line: Timeline, truth: Sequence[Segment]) -> JudgedVideo:
        gaps = tuple((gap.start_seconds, gap.end_seconds) for gap in line.damaged)
        span = line.start_seconds, line.end_seconds
        return cls(line.path, tuple(truth), line.segments, span, gaps, events_of(line, truth))

    @cached_property
    def track(self) -> list[Segment]:
        return track_of(self.found, *self.span)

    @cached_property
    def joined(self) -> list[Segment]:
        return joined(self.truth)


def events_of(line: Timeline, truth: Sequence[Segment]) -> tuple[Event, ...]:
    """Each true segment with its delays: of the first found segment of its class that overlaps it."""
    scores = smoothed_scores(line.times, line.scores, line.rules.smooth, [gap[:2] for gap in line.damaged])
    on = dict(zip(line.class_names, line.rules.thresholds(line.class_names)[0].tolist(), strict=True))
    events = []
    for one in truth:
        said = [
            other for other in line.segments
            if other.label == one.label
            and other.start_seconds < one.end_seconds and other.end_seconds > one.start_seconds
        ]  # fmt: skip
        if not said:
            events.append(Event(one.label, np.nan, np.nan))
            continue
        first = min(said, key=lambda other: other.start_seconds)
        column = scores[:, line.class_names.index(one.label)]
        says, knows = _moments(line, first, column, on[one.label])
        events.append(Event(one.label, max(0.0, says - one.start_seconds), max(0.0, knows - one.start_seconds)))
    return tuple(events)


def _moments(line: Timeline, found: Segment, scores: np.ndarray, on: float) -> tuple[float, float]:
    """(the time of the segment's first window; when a live source could know of the segment).

    It is known once the last frame of a window with a score of ``on`` is there, with the windows that its mean is of,
    and once the segment is as long as it must be.
    """
    rules, ends = line.rules, line.times if line.ends is None else line.ends
    inside = np.flatnonzero((line.times >= found.start_seconds) & (line.times <= found.end_seconds))
    first = int(inside[np.argmax(scores[inside] >= on)])
    long = inside[line.times[inside] - found.start_seconds >= rules.min_seconds]
    needed = max(first, int(long[0]) if len(long) else int(inside[-1])) if rules.min_seconds else first
    known = ends[min(needed + rules.smooth // 2, len(ends) - 1)]
    return float(line.times[inside[0]]), float(known)


@dataclass(frozen=True, eq=False)
class JudgedTimelines:
    """Videos, and the Y labels of events, without background."""

    videos: tuple[JudgedVideo, ...]
    labels: tuple[str, ...]

    @cached_property
    def _seconds(self) -> list[tuple[np.ndarray, float]]:
        return [seconds_by_label(one.truth, one.found, self.labels, one.span, one.gaps) for one in self.videos]

    @cached_property
    def seconds(self) -> np.ndarray:
        """(V,Y+1,Y+1): ``seconds_by_label`` of each video."""
        return np.stack([seconds for seconds, _ in self._seconds])

    @cached_property
    def left_out(self) -> np.ndarray:
        """(V): seconds with several labels."""
        return np.array([seconds for _, seconds in self._seconds])

    @cached_property
    def counts(self) -> np.ndarray:
        """(V,3,Y,3): right, wrong and missed segments of each track, by ``SHARES`` and class."""
        counts = np.zeros((len(self.videos), len(SHARES), len(self.labels), 3), np.int64)
        for place, one in enumerate(self.videos):
            for y, label in enumerate(self.labels):
                found, truth = of_label(one.track, label), of_label(one.joined, label)
                for row, share in enumerate(SHARES if found or truth else ()):
                    counts[place, row, y] = counts_of_track(found, truth, share)
        return counts

    @cached_property
    def edits(self) -> np.ndarray:
        """(V): the edit score of each video."""
        return np.array([
            edit_score([found.label for found in one.track], [true.label for true in one.joined]) for one in self.videos
        ])  # fmt: skip

    @cached_property
    def events(self) -> list[tuple[int, Event]]:
        """(video, event) of all true segments."""
        return [(place, event) for place, one in enumerate(self.videos) for event in one.events]

    @cached_property
    def num_events(self) -> np.ndarray:
        """(V,Y): the true segments of each class."""
        return np.array([[len(of_label(one.truth, label)) for label in self.labels] for one in self.videos])

    @cached_property
    def detected(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each class (video (n), hits (n,·) for ``THRESHOLDS``) of its found segments, the best of all first."""
        detected = []
        for label in self.labels:
            parts = [detections(of_label(one.found, label), of_label(one.truth, label), THRESHOLDS)
                     for one in self.videos]  # fmt: skip
            scores, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
            videos = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
            order = np.argsort(-scores, kind="stable")
            detected.append((videos[order], hits[order]))
        return detected

    @cached_property
    def whole(self) -> Draws:
        """Every video once."""
        return Draws(self, np.ones((1, len(self.videos))))

    @cached_property
    def drawn(self) -> Draws | None:
        """As many videos as there are, drawn with replacement, many times, always in the same way; None of one video.

        The spread of a score over these draws is its interval (the bootstrap over videos, percentiles)."""
        count = len(self.videos)
        if count < 2:
            return None
        weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), NUM_DRAWS)
        return Draws(self, weights.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Draws:
    """``weights`` (B,V): how often each video is in each of B draws."""

    judged: JudgedTimelines
    weights: np.ndarray

    @cached_property
    def average_precisions(self) -> np.ndarray:
        """(B,Y,·): of each class by ``THRESHOLDS``; NaN where a draw has no true segment of the class."""
        judged, weights = self.judged, self.weights
        found = np.empty((len(weights), len(judged.labels), len(THRESHOLDS)))
        positives = weights @ judged.num_events
        for y, (videos, hits) in enumerate(judged.detected):
            size = max(1, _AT_ONCE // max(1, len(videos)))
            for start in range(0, len(weights), size):
                rows = slice(start, start + size)
                drawn = weights[rows][:, videos]
                for column in range(len(THRESHOLDS)):
                    found[rows, y, column] = average_precision(hits[:, column], drawn, positives[rows, y])
        return found

    @cached_property
    def seconds(self) -> np.ndarray:
        """(B,Y+1,Y+1)"""
        return np.einsum("bv,vyz->byz", self.weights, self.judged.seconds)

    def counts(self, share: float) -> np.ndarray:
        """(B,Y,3)"""
        return np.einsum("bv,vyc->byc", self.weights, self.judged.counts[:, SHARES.index(share)])


def of_label(segments: Sequence[Segment], label: str) -> list[Segment]:
    return [one for one in segments if one.label == label]
