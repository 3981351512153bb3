"""Scores as counts over videos, computed from predictions and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evl.types import Prediction


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
    def top5(self) -> float:
        return 100 * self.top5_hits / max(1, self.num_videos)

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
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "num_videos": self.num_videos,
        }


def compute_metrics(predictions: Sequence[Prediction], num_classes: int) -> Metrics:
    """From labelled predictions of ``num_classes`` scores each."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    top5_hits = 0
    for prediction in predictions:
        best = prediction.top(5)
        confusion[prediction.label, best[0]] += 1
        top5_hits += prediction.label in best
    return Metrics(confusion, top5_hits)
