"""Scores of labelled videos, computed from predictions and nothing else. ``METRICS`` says which there are.

A new metric is a function of ``Judged`` and one line of ``METRICS``, or a function of your own that
``evaluation.metrics`` names (docs/adding-a-metric.md). Whatever lists, writes or chooses by metrics reads this dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evl.errors import ConfigError, DataError, nearest
from evl.runtime.import_path import import_object, is_import_path
from evl.types import Prediction

_NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution
# those of Student's t, for 1, 2, 3, … degrees of freedom
_STUDENT = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814, 2.20099,
            2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302)  # fmt: skip


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


@dataclass(frozen=True)
class Judged:
    """n labelled videos and what a model says of them: all that a metric is computed from.

    ``labels`` (n) and ``predicted`` (n) are numbers of classes; ``scores`` (n,Y) are softmax averaged over views, in
    the order of ``class_names``. ``predicted`` is the class with the best score, the smaller number of equals.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], class_names: Sequence[str]) -> Judged:
        """Labelled predictions as arrays, which cannot be written to."""
        scores = np.array([one.scores for one in predictions], np.float64).reshape(-1, len(class_names))
        labels, predicted = np.array([one.label for one in predictions], np.int64), scores.argmax(1)
        for array in (labels, predicted, scores):
            array.setflags(write=False)
        return cls(tuple(one.path for one in predictions), labels, predicted, scores, tuple(class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(Y,Y): ``confusion[y, z]`` videos of class y were taken for z."""
        counts = np.zeros((len(self.class_names),) * 2, dtype=np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Args:
        compute: the number, from ``Judged``. None or NaN: there is none, for these videos.
        title: what it is called in tables, such as ``top-1``.
        higher_is_better: None for a number that describes the videos and not the model; nothing is chosen by it.
        unit: ``%``, or nothing.
        interval: its 95 % interval, ``interval(value, judged)`` -> (low, high); None: it has none.
        least_classes: with fewer classes it says nothing, and is left out.
        meaning: what the title leaves open, for the page of a model.
    """

    compute: Callable[[Judged], float | None]
    title: str
    higher_is_better: bool | None = True
    unit: str = "%"
    interval: Callable[[float, Judged], tuple[float, float]] | None = None
    least_classes: int = 1
    meaning: str = ""

    def text(self, value: float | None, digits: int = 1) -> str:
        """The number as it is shown: ``62.5 %``, ``0.6931``."""
        if value is None or not math.isfinite(value):
            return "no number"
        return f"{value:.{digits}f} %" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()


def top1(judged: Judged) -> float:
    """Percent of videos whose best class is their label; 0 if there are no videos."""
    return 100 * int(judged.confusion.trace()) / max(1, len(judged))


def top5(judged: Judged) -> float:
    """Percent of videos whose label is among the five best; of equal scores the smaller number is the better."""
    own = np.take_along_axis(judged.scores, judged.labels[:, None], 1)
    before = np.arange(len(judged.class_names)) < judged.labels[:, None]
    ranks = ((judged.scores > own) | ((judged.scores == own) & before)).sum(1)
    return 100 * int((ranks < 5).sum()) / max(1, len(judged))


def mean_class_accuracy(judged: Judged) -> float:
    """Percent right of each class, the mean over classes that have videos; 0 if there are no videos."""
    right = [accuracy for accuracy in class_accuracy(judged.confusion) if accuracy is not None]
    return float(np.mean(right or [0.0]))


def macro_f1(judged: Judged) -> float:
    """Percent 2·TP / (2·TP + FP + FN) of each class, the mean over classes that are a label or a prediction of some
    video; 0 if there are no videos."""
    counts = judged.confusion
    total = counts.sum(0) + counts.sum(1)
    return 100 * float(np.mean(2 * counts.diagonal()[total > 0] / total[total > 0])) if total.any() else 0.0


def loss(judged: Judged) -> float:
    """The mean of −log of the right class's score (at least 1e-12); 0 if there are no videos."""
    right = judged.scores[np.arange(len(judged)), judged.labels].tolist()
    return sum(-math.log(max(score, 1e-12)) for score in right) / max(1, len(judged))


def chance(judged: Judged) -> float:
    """Percent top-1 of always naming these videos' most frequent class: 100 / Y where all Y classes are equally
    frequent. 0 if there are no videos."""
    return 100 * int(judged.confusion.sum(1).max(initial=0)) / max(1, len(judged))


def interval_of_share(percent: float, judged: Judged) -> tuple[float, float]:
    """Where a percent of videos may lie over many more videos like these, percent (``wilson_interval``)."""
    return wilson_interval(round(percent * len(judged) / 100), len(judged))


METRICS = {
    "top1": Metric(top1, "top-1", interval=interval_of_share),
    "top5": Metric(top5, "top-5", interval=interval_of_share, least_classes=6),  # of fewer every video would be a hit
    "mean_class_accuracy": Metric(mean_class_accuracy, "mean class accuracy"),
    "macro_f1": Metric(macro_f1, "macro F1"),
    "loss": Metric(loss, "loss", higher_is_better=False, unit=""),
    "chance": Metric(chance, "chance", higher_is_better=None, meaning="always the most frequent class"),
}
# what else stands beside metrics where they are written
_TAKEN = ("num_videos", "num_damaged", "protocol", "titles", "class_accuracy", "damaged", "outcome", "chosen_among")


@dataclass(frozen=True)
class Score:
    """A metric's number for some videos, NaN where it has none."""

    metric: Metric
    value: float
    interval: tuple[float, float] | None = None

    @property
    def rank(self) -> float:
        """To choose by, the smallest is the best; infinite where there is no number, so that it is never chosen."""
        if not math.isfinite(self.value) or self.metric.higher_is_better is None:
            return math.inf
        return -self.value if self.metric.higher_is_better else self.value

    def text(self, digits: int = 1, *, interval: bool = False) -> str:
        text = self.metric.text(self.value, digits)
        if not interval or self.interval is None:
            return text
        ends = (self.metric.text(end).removesuffix(f" {self.metric.unit}") for end in self.interval)
        return f"{text} ({' to '.join(ends)})"


@dataclass(frozen=True)
class Metrics:
    """What predictions of labelled videos came to: ``scores`` by the names of ``METRICS`` and of own metrics.

    Each value is an attribute too, ``metrics.top1``; None for a metric of evl that says nothing of so few classes.
    ``confusion[y, z]``: videos of class y taken for z.
    """

    confusion: np.ndarray
    scores: Mapping[str, Score]

    def __getattr__(self, name: str) -> float | None:
        scores = self.__dict__.get("scores", {})  # none yet while it is unpickled
        if name not in scores and name not in METRICS:
            raise AttributeError(f"no metric {name!r}{nearest(name, scores)}")
        return scores[name].value if name in scores else None

    @property
    def num_videos(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % confidence, percent."""
        return self.scores["top1"].interval

    @property
    def comparable(self) -> dict[str, Score]:
        """The scores that a model can be chosen by."""
        return {name: one for name, one in self.scores.items() if one.metric.higher_is_better is not None}

    def class_accuracy(self) -> list[float | None]:
        """Percent a class; None where it has no videos."""
        return class_accuracy(self.confusion)

    def values(self) -> dict[str, float | None]:
        """Names -> numbers, None where there is no number; and ``num_videos``."""
        found = {name: one.value if math.isfinite(one.value) else None for name, one in self.scores.items()}
        return {**found, "num_videos": self.num_videos}

    def to_dict(self) -> dict:
        """``values``, intervals as ``top1_interval``, and ``titles`` for whoever shows them without these metrics."""
        intervals = {f"{name}_interval": list(one.interval) for name, one in self.scores.items() if one.interval}
        titles = {}
        for name, one in self.scores.items():
            inside = ": ".join(part for part in (one.metric.unit, one.metric.meaning) if part)
            titles[name] = f"{one.metric.title} ({inside})" if inside else one.metric.title
        return {**self.values(), **intervals, "titles": titles}


def class_accuracy(confusion: np.ndarray) -> list[float | None]:
    """Percent a class; None where it has no videos."""
    counts = confusion.sum(1).tolist()
    return [100 * int(confusion[y, y]) / count if count else None for y, count in enumerate(counts)]


def compute_metrics(judged: Judged, metrics: Mapping[str, Metric] = METRICS) -> Metrics:
    """All of ``metrics`` that say something of so many classes. Raises DataError for one that fails."""
    scores = {}
    for name, metric in metrics.items():
        if len(judged.class_names) < metric.least_classes:
            continue
        try:
            value = metric.compute(judged)
            value = math.nan if value is None else float(value)
            has_interval = metric.interval is not None and math.isfinite(value)
            scores[name] = Score(metric, value, metric.interval(value, judged) if has_interval else None)
        except Exception as error:  # whatever its own code raises
            said = f"the metric {name} failed on {len(judged)} videos: {type(error).__name__}: {error}"
            raise DataError(said) from error
    return Metrics(judged.confusion, scores)


def find_metrics(own: Iterable[str] = ()) -> dict[str, Metric]:
    """``METRICS`` and those that ``own`` names by where they are imported from, ``my_module:my_metric``: a function of
    ``Judged``, or a ``Metric``. The name is ``my_metric``. Raises ConfigError for what is no metric."""
    found = dict(METRICS)
    for path in dict.fromkeys((own,) if isinstance(own, str) else own):
        if path in METRICS:
            continue
        said, name = f"evaluation.metrics={path}", path.partition(":")[2]
        if not is_import_path(path):
            raise ConfigError(f"{said}: expected the import path of your own metric, such as my_module:my_metric")
        if name in found or name in _TAKEN or hasattr(Metrics, name):
            raise ConfigError(f"{said}: there is {name} already; call yours otherwise")
        metric = import_object(path, "evaluation.metrics")
        if not isinstance(metric, Metric) and (isinstance(metric, type) or not callable(metric)):
            raise ConfigError(f"{said}: {name} is no function and no evl.evaluation.Metric, but {metric!r:.60}")
        found[name] = metric if isinstance(metric, Metric) else Metric(metric, name.replace("_", " "), unit="")
    return found


def require_metric(name: str, metrics: Mapping[str, Metric], num_classes: int) -> Metric:
    """The metric that ``training.select_by`` names. Raises ConfigError where there is none, or nothing can be chosen by
    it."""
    if name not in metrics:
        able = [one for one, metric in metrics.items() if metric.higher_is_better is not None]
        more = f"; name it in evaluation.metrics too, and here {name.partition(':')[2]}" if is_import_path(name) else ""
        raise ConfigError(f"training.select_by={name}: there is no such metric{more or nearest(name, able)}")
    metric = metrics[name]
    if metric.higher_is_better is None:
        raise ConfigError(f"training.select_by={name}: {metric.title} is the same for every model; choose by another")
    if num_classes < metric.least_classes:
        raise ConfigError(
            f"training.select_by={name}: {metric.title} says nothing of {num_classes} classes, only of "
            f"{metric.least_classes} or more; choose by another"
        )
    return metric
