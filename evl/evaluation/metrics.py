"""Scores as counts over videos, computed from predictions and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evl.types import Prediction

_NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution
# those of Student's t, for 1, 2, 3, … degrees of freedom
_STUDENT = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814, 2.20099,
            2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302)  # fmt: skip


@dataclass(frozen=True)
class Metrics:
    """``confusion[y, z]``: videos of class y taken for z. ``top5_hits``: label among the five best."""

    confusion: np.ndarray
    top5_hits: int

    @property
    def num_videos(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Percent of videos; 0 if there are none."""
        return 100 * int(self.confusion.trace()) / max(1, self.num_videos)

    @property
    def chance(self) -> float:
        """Percent top-1 of always naming these videos' most frequent class: 100 / Y where all Y classes are equally
        frequent. 0 if there are no videos."""
        return 100 * int(self.confusion.sum(1).max(initial=0)) / max(1, self.num_videos)

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % confidence, percent: where top-1 may lie over many more videos like these (``wilson_interval``)."""
        return wilson_interval(int(self.confusion.trace()), self.num_videos)

    @property
    def top5(self) -> float | None:
        """Percent of videos; None of five classes or fewer, where every video would be a hit."""
        return 100 * self.top5_hits / max(1, self.num_videos) if top5_says_something(len(self.confusion)) else None

    @property
    def mean_class_accuracy(self) -> float:
        """Percent, the mean over classes that have videos."""
        per_class = self.class_accuracy()
        return float(np.mean([accuracy for accuracy in per_class if accuracy is not None] or [0.0]))

    def class_accuracy(self) -> list[float | None]:
        """Percent a class; None where it has no videos."""
        counts = self.confusion.sum(1)
        return [
            100 * int(self.confusion[y, y]) / int(count) if count else None for y, count in enumerate(counts.tolist())
        ]

    def to_dict(self) -> dict[str, float]:
        """``top5`` only where it says something."""
        return {
            "top1": self.top1,
            "chance": self.chance,
            **({} if self.top5 is None else {"top5": self.top5}),
            "mean_class_accuracy": self.mean_class_accuracy,
            "num_videos": self.num_videos,
        }


def top5_says_something(num_classes: int) -> bool:
    """Whether a label can be outside the five best of so many classes."""
    return num_classes > 5


def compute_metrics(predictions: Sequence[Prediction], num_classes: int) -> Metrics:
    """From labelled predictions of ``num_classes`` scores each."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    top5_hits = 0
    for prediction in predictions:
        best = prediction.best(5)
        confusion[prediction.label, best[0]] += 1
        top5_hits += prediction.label in best
    return Metrics(confusion, top5_hits)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share, in percent: Wilson's, which holds for few videos and near 0 and 100 too.

    It is about chance in drawing ``total`` videos, not about other seeds of training. No videos tell nothing: 0 to 100.
    """
    if not 0 <= hits <= total:
        raise ValueError(f"{hits} hits of {total} videos: expected no more hits than videos")
    if not total:
        return 0.0, 100.0
    share, z = hits / total, _NORMAL
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): of percents over seeds, with Student's 95 % confidence interval of the mean, cut to 0–100.

    2 to 20 values, or ValueError.
    """
    if not 2 <= len(values) <= len(_STUDENT) + 1:
        raise ValueError(f"{len(values)} values: expected 2 to {len(_STUDENT) + 1}")
    mean = float(np.mean(values))
    half = _STUDENT[len(values) - 2] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(100.0, mean + half)
