"""A model against labelled videos."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from rich.table import Table

from evl.config import RunConfig
from evl.data.draw import describe_groups
from evl.errors import DataError
from evl.evaluation.metrics import METRICS, Judged, Metric, Metrics, compute_metrics, find_metrics, require_metric
from evl.inference.predictor import Predictions, predict_views
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.text import cell, clean_label
from evl.streams import Stream
from evl.types import Prediction, Sample
from evl.video.decode.missing import is_missing


@dataclass(frozen=True)
class Evaluation:
    """``protocol``: one line that says how it was measured. ``damaged``: path → reason, not part of any score."""

    metrics: Metrics
    predictions: tuple[Prediction, ...]
    damaged: dict[str, str]
    protocol: str
    class_names: tuple[str, ...]

    @property
    def top1(self) -> float:
        """Percent of the videos, ``metrics.top1``."""
        return self.metrics.top1

    def table(self, num_classes: int = 20) -> Table:
        """A row for each class, the hardest first, at most ``num_classes``: for a terminal (``rich.print``) or a
        notebook, which shows it where it is the last line of a cell."""
        metrics, names = self.metrics, self.class_names
        accuracies = zip(metrics.class_accuracy(), names, range(len(names)), strict=True)
        rows = sorted(row for row in accuracies if row[0] is not None)
        title = "hardest classes" if len(rows) > num_classes else None
        table = Table("class", "videos", "right", "most often taken for", title=title)
        for accuracy, name, y in rows[:num_classes]:
            others = metrics.confusion[y].copy()
            others[y] = 0
            wrong = f"{names[others.argmax()]} ({others.max()})" if others.any() else ""
            table.add_row(cell(name), str(metrics.confusion[y].sum()), f"{accuracy:.0f} %", cell(wrong))
        return table

    def to_dict(self) -> dict:
        return {**self.metrics.to_dict(), "num_damaged": len(self.damaged), "protocol": self.protocol}


def evaluate_views(
    models: Sequence[Classifier],
    stream: Stream,
    *,
    metrics: Sequence[str] | None = None,
    trained_on: Sequence[Sample] = (),
    batch_size: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Evaluation]:
    """Models of the same classes on every video of a stream of views, in one pass over it.

    ``metrics``: own ones besides evl's (``find_metrics``); None: those that each model was trained with.
    ``trained_on``: the protocol then says whether groups of the videos are among theirs. Under torchrun every process
    gets the same, whole result. Raises DataError where there is not one prediction, so no score, or a metric
    fails; ConfigError for a metric that cannot be imported.
    """
    found = [find_metrics(model.card.config.evaluation.metrics if metrics is None else metrics) for model in models]
    labels = labels_of(stream.samples, models[0].class_names)
    results = predict_views(models, stream, labels, batch_size=batch_size, world=world, progress=progress)
    evaluations = []
    for model, result, wanted in zip(models, results, found, strict=True):
        if not result.predictions:
            _refuse_to_score_nothing(result, stream.samples)
        protocol = protocol_of(model, stream, len(result.predictions))
        judged = [sample for index, sample in enumerate(stream.samples) if index not in result.damaged]
        if groups := describe_groups(trained_on, judged):
            protocol = f"{protocol}, {groups}"
        scores = compute_metrics(Judged.of(result.predictions, model.class_names), wanted)
        damaged = {stream.samples[index].name: reason for index, reason in result.damaged.items()}
        evaluations.append(Evaluation(scores, result.predictions, damaged, protocol, model.class_names))
    return evaluations


def selecting_metric(config: RunConfig, class_names: Sequence[str], samples: Sequence[Sample]) -> Metric:
    """What ``training.select_by`` names, after own metrics were tried on made-up scores of the videos ``samples``, so
    that what cannot be computed is refused before anything is trained. Raises ConfigError or DataError."""
    metrics = find_metrics(config.evaluation.metrics)
    metric = require_metric(config.training.select_by, metrics, len(class_names))
    if samples and len(metrics) > len(METRICS):
        labels = np.array(labels_of(samples, class_names))
        scores = np.random.default_rng(0).dirichlet(np.ones(len(class_names)), len(samples))
        paths = tuple(sample.path for sample in samples)
        compute_metrics(Judged(paths, labels, scores.argmax(1), scores, tuple(class_names)), metrics)
    return metric


def protocol_of(model: Classifier, stream: Stream, num_videos: int) -> str:
    """How a model saw the videos of a stream, on one line: no score is printed without it."""
    views = stream.views
    return model.card.protocol(num_videos, views.num_clips, views.num_crops, views.precision) + views.note


def labels_of(samples: Sequence[Sample], class_names: Sequence[str]) -> list[int]:
    """The number of each sample's class. Raises DataError for labels that are none of them, with the first file."""
    index_of = {clean_label(name): y for y, name in enumerate(class_names)}
    labels = [None if sample.label is None else index_of.get(clean_label(sample.label)) for sample in samples]
    if None in labels:
        _refuse_unknown(samples, labels, class_names)
    return labels


def _refuse_unknown(samples: Sequence[Sample], labels: Sequence[int | None], class_names: Sequence[str]) -> NoReturn:
    unknown = [sample for sample, label in zip(samples, labels, strict=True) if label is None]
    first = unknown[0]
    known = f"the model's {len(class_names)} classes are {_listed(class_names)}"
    if first.label is None:
        raise DataError(f"{first.name} has no label, so it cannot be judged; {known}")
    others = list(dict.fromkeys(repr(sample.label) for sample in unknown if sample.label != first.label))
    more = f" ({len(unknown)} of {len(samples)} videos have such labels: also {_listed(others, 5)})" if others else ""
    near = difflib.get_close_matches(str(first.label), class_names, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{first.name} has the label {first.label!r}, which the model does not know{more}; {known}{meant}. Judge by "
        "videos of these classes, or correct the labels"
    )


def _listed(names: Sequence[str], most: int = 30) -> str:
    """Names with commas between, and how many more there are."""
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse_to_score_nothing(result: Predictions, samples: Sequence[Sample]) -> NoReturn:
    if not samples:
        raise DataError("no videos to judge by: the list is empty")
    index, reason = next(iter(result.damaged.items()))
    todo = "Are these videos? 'evl check' looks at every one"
    if all(map(is_missing, result.damaged.values())):
        todo = "If they were moved, give their new folder by `root`"
    raise DataError(
        f"not one of {len(samples)} videos could be read, such as {samples[index].name}: {reason}; there is no score, "
        f"and nothing is written. {todo}"
    )
