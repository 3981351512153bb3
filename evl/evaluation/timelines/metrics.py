"""The scores of timelines. ``TIMELINE_METRICS`` names all; each is computed for many draws of videos at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evl.errors import nearest
from evl.evaluation.metrics import Metric, Score
from evl.evaluation.timelines.judged import LOOSE, SHARES, STRICT, THRESHOLDS, Draws, JudgedTimelines
from evl.evaluation.timelines.matching import f1


def mean_average_precision(draws: Draws, thresholds: Sequence[float]) -> np.ndarray:
    """Percent: the mean over classes that have true segments, and over thresholds of the temporal IoU."""
    places = [THRESHOLDS.index(threshold) for threshold in thresholds]
    return 100 * _mean(draws.average_precisions[:, :, places].mean(2))


def frame_accuracy(draws: Draws) -> np.ndarray:
    """Percent of the time in which the track has the right label, or rightly none."""
    return 100 * _share(np.trace(draws.seconds, axis1=1, axis2=2), draws.seconds.sum((1, 2)))


def frame_precision(draws: Draws) -> np.ndarray:
    """Percent of a class's found time that is right; the mean over classes with labeled time, 0 for one never found."""
    return 100 * _mean(_where(draws, class_precision(draws.seconds)))


def frame_recall(draws: Draws) -> np.ndarray:
    """Percent of a class's labeled time that is found; the mean over classes with labeled time."""
    return 100 * _mean(_where(draws, class_recall(draws.seconds)))


def edit(draws: Draws) -> np.ndarray:
    """Percent: the mean edit score of the videos."""
    return draws.weights @ draws.judged.edits / draws.weights.sum(1)


def segmental_f1(draws: Draws, share: float) -> np.ndarray:
    """Percent: F1 of the counts of all classes and videos."""
    right, wrong, missed = np.moveaxis(draws.counts(share).sum(1), -1, 0)
    return f1(right, wrong, missed)


def events_found(draws: Draws) -> np.ndarray:
    """Percent of the true segments that a found segment of their class overlaps."""
    videos, values = _delays(draws, "delay")
    weights = draws.weights[:, videos]
    return 100 * _share((weights * np.isfinite(values)).sum(1), weights.sum(1))


def median_delay(draws: Draws, kind: str) -> np.ndarray:
    """Seconds: the median over true segments that were found; the lower one of two in the middle."""
    videos, values = _delays(draws, kind)
    order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]
    weights = np.cumsum(draws.weights[:, videos[order]], 1)
    if not len(order):
        return np.full(len(draws.weights), np.nan)
    places = (weights >= weights[:, -1:] / 2).argmax(1)
    return np.where(weights[:, -1] > 0, values[order][places], np.nan)


def chance(draws: Draws) -> np.ndarray:
    """Percent of the time that has the most frequent label, or none, whichever is more."""
    return 100 * _share(draws.seconds.sum(2).max(1), draws.seconds.sum((1, 2)))


def class_precision(seconds: np.ndarray) -> np.ndarray:
    """(B,Y): the share of each class's found time that is right; 0 where there is none."""
    found = seconds.sum(1)[:, :-1]
    right = np.diagonal(seconds, axis1=1, axis2=2)[:, :-1]
    return np.divide(right, found, out=np.zeros_like(found), where=found > 0)


def class_recall(seconds: np.ndarray) -> np.ndarray:
    """(B,Y): the share of each class's labeled time that is found; NaN where there is none."""
    labeled = seconds.sum(2)[:, :-1]
    return _share(np.diagonal(seconds, axis1=1, axis2=2)[:, :-1], labeled)


def _where(draws: Draws, values: np.ndarray) -> np.ndarray:
    return np.where(draws.seconds.sum(2)[:, :-1] > 0, values, np.nan)


def _delays(draws: Draws, kind: str) -> tuple[np.ndarray, np.ndarray]:
    events = draws.judged.events
    return np.array([video for video, _ in events], np.int64), np.array([getattr(one, kind) for _, one in events])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """(B,Y) -> (B): the mean of those that are numbers."""
    is_number = np.isfinite(values)
    return _share(np.where(is_number, values, 0).sum(1), is_number.sum(1))


def _metric(of: Callable[[Draws], np.ndarray], title: str, **options) -> Metric:
    def interval(value: float, judged: JudgedTimelines) -> tuple[float, float] | None:
        if judged.drawn is None:
            return None
        values = of(judged.drawn)
        values = values[np.isfinite(values)]
        return (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) if len(values) else None

    return Metric(lambda judged: float(of(judged.whole)[0]), title, interval=interval, **options)


TIMELINE_METRICS: dict[str, Metric] = {
    "map_30_70": _metric(lambda draws: mean_average_precision(draws, LOOSE), "mAP 0.3–0.7",
                         meaning="mean average precision, mean over temporal IoU of 0.3, 0.4 … 0.7"),
    "map_50_95": _metric(lambda draws: mean_average_precision(draws, STRICT), "mAP 0.5–0.95",
                         meaning="mean average precision, mean over temporal IoU of 0.5, 0.55 … 0.95"),
    "map_50": _metric(lambda draws: mean_average_precision(draws, (0.5,)), "mAP 0.5"),
    **{f"f1_{round(100 * share)}": _metric(lambda draws, share=share: segmental_f1(draws, share),
                                           f"F1@{round(100 * share)}") for share in SHARES},
    "edit": _metric(edit, "edit score"),
    "frame_accuracy": _metric(frame_accuracy, "frame accuracy", meaning="share of the time"),
    "frame_precision": _metric(frame_precision, "frame precision", meaning="mean of classes"),
    "frame_recall": _metric(frame_recall, "frame recall", meaning="mean of classes"),
    "events_found": _metric(events_found, "events found", meaning="overlapped by a found segment of their class"),
    "delay": _metric(lambda draws: median_delay(draws, "delay"), "delay", unit="s", higher_is_better=False,
                     meaning="median, from a start to the first window that says it"),
    "live_delay": _metric(lambda draws: median_delay(draws, "live_delay"), "live delay", unit="s",
                          higher_is_better=False, meaning="median, from a start until a live source can know it"),
    "chance": _metric(chance, "chance", higher_is_better=None, meaning="frame accuracy of always the same answer"),
}  # fmt: skip


@dataclass(frozen=True)
class TimelineScores:
    """``scores`` by the names of ``TIMELINE_METRICS``; each value is an attribute too, ``metrics.map_50``."""

    scores: Mapping[str, Score]
    map_by_threshold: Mapping[float, float]  # temporal IoU -> mean average precision, percent

    def __getattr__(self, name: str) -> float:
        scores = self.__dict__.get("scores", {})
        if name not in scores:
            raise AttributeError(f"no metric {name!r}{nearest(name, scores)}")
        return scores[name].value

    @classmethod
    def of(cls, judged: JudgedTimelines) -> TimelineScores:
        scores = {}
        for name, metric in TIMELINE_METRICS.items():
            value = metric.compute(judged)
            scores[name] = Score(metric, value, metric.interval(value, judged) if math.isfinite(value) else None)
        by_threshold = {one: float(mean_average_precision(judged.whole, (one,))[0]) for one in THRESHOLDS}
        return cls(scores, by_threshold)

    def to_dict(self) -> dict:
        """Names -> numbers, None where there is none; ``NAME_interval``; ``titles``."""
        content: dict = {name: _number(one.value) for name, one in self.scores.items()}
        content |= {f"{name}_interval": list(one.interval) for name, one in self.scores.items() if one.interval}
        content["map_by_threshold"] = {f"{one:g}": _number(value) for one, value in self.map_by_threshold.items()}
        content["titles"] = {
            name: f"{one.metric.title} ({': '.join(filter(None, (one.metric.unit, one.metric.meaning)))})"
            for name, one in self.scores.items()
        }
        return content


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
