"""Metrics from outside evl, good ones and others."""

from collections import Counter

import numpy as np

from evl.evaluation import Judged, Metric
from evl.evaluation.metrics import class_accuracy

NAMES = ("a", "b")
__all__ = ["NAMES", "Counter"]


def worst_class(judged: Judged) -> float:
    return min(accuracy for accuracy in class_accuracy(judged.confusion) if accuracy is not None)


def _squares(judged: Judged) -> np.ndarray:
    return ((judged.scores - np.eye(len(judged.class_names))[judged.labels]) ** 2).sum(1)


def _interval(value: float, judged: Judged) -> tuple[float, float]:
    half = 1.96 * _squares(judged).std() / len(judged) ** 0.5
    return value - half, value + half


brier = Metric(
    lambda judged: _squares(judged).mean(), "Brier score", higher_is_better=False, unit="", interval=_interval
)


def falling(judged: Judged) -> float:
    """Falls with the number of calls, so that the first step is the best."""
    falling.calls = getattr(falling, "calls", 0) + 1
    return -falling.calls


def later(judged: Judged) -> float:
    """No number in the first call (the try before training) and the second (the first validation)."""
    later.calls = getattr(later, "calls", 0) + 1
    return float("nan") if later.calls <= 2 else 1.0


def breaks(judged: Judged) -> float:
    """Fails from the second call on."""
    breaks.calls = getattr(breaks, "calls", 0) + 1
    if breaks.calls > 1:
        raise ZeroDivisionError("nothing was predicted")
    return 1.0


def undecided(judged: Judged) -> float:
    """A number for models that are sure, none for others."""
    return 1.0 if judged.scores.max(1).mean() > 0.68 else float("nan")


def nothing(judged: Judged) -> None:
    return None


def top1(judged: Judged) -> float:
    return 0.0


protocol = values = top1


def fails(judged: Judged) -> float:
    raise KeyError("no such video")


def a_text(judged: Judged) -> str:
    return "high"


def writes(judged: Judged) -> float:
    judged.scores[:] = 0
    return 1.0
