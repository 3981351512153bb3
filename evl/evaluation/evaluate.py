"""A model against labelled videos."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from evl.data.dataset import Files
from evl.data.groups import describe_groups
from evl.data.labels import clean_label
from evl.data.moved import NO_FILE
from evl.distributed import World
from evl.errors import DataError
from evl.evaluation.metrics import Metrics, compute_metrics
from evl.inference.predictor import Predictions, judging_precision, predict_samples_by
from evl.models import VideoClassifier
from evl.types import Prediction, Sample


@dataclass(frozen=True)
class Evaluation:
    """``protocol``: one line that says how it was measured. ``damaged``: path → reason, not part of any score."""

    metrics: Metrics
    predictions: tuple[Prediction, ...]
    damaged: dict[str, str]
    protocol: str
    class_names: tuple[str, ...]

    def to_dict(self) -> dict:
        return {**self.metrics.to_dict(), "num_damaged": len(self.damaged), "protocol": self.protocol}


def evaluate(
    model: VideoClassifier,
    samples: Sequence[Sample],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
    trained_on: Sequence[Sample] = (),
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Predicts every sample once and counts. Raises DataError where a label is none of the model's class
    names.

    Views are the model's own unless given; ``files``: the samples', if they were read before. ``trained_on``: the
    protocol then says whether groups of ``samples`` are among theirs.
    Under torchrun every process gets the same, whole result.
    """
    return evaluate_together(
        [model],
        samples,
        num_clips=num_clips,
        num_crops=num_crops,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
        files=files,
        trained_on=trained_on,
        world=world,
        progress=progress,
    )[0]


def evaluate_together(
    models: Sequence[VideoClassifier],
    samples: Sequence[Sample],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    precision: str | None = None,
    trained_on: Sequence[Sample] = (),
    **options,
) -> list[Evaluation]:
    """Models of the same classes that share their backbone, each as ``evaluate``, in one pass."""
    first = models[0]
    samples = samples if isinstance(samples, str | bytes) else tuple(samples)
    if not all(isinstance(sample, Sample) for sample in samples):
        raise DataError(
            f"expected a list of evl.types.Sample, got {type(samples).__name__} {samples!r:.60}; a folder or list of "
            "videos becomes one by evl.data.read_manifest(path).samples"
        )
    labels = labels_of(samples, first.class_names)
    views = dict(num_clips=num_clips, num_crops=num_crops)
    results = predict_samples_by(models, samples, labels, precision=precision, **views, **options)
    used = judging_precision(first, precision)
    return [
        counted(
            result, samples, model.class_names,
            model.card.protocol(len(result.predictions), **views, precision=used), trained_on,
        )
        for model, result in zip(models, results, strict=True)
    ]  # fmt: skip


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
    if all(one == NO_FILE for one in result.damaged.values()):
        todo = "If they were moved, give --root (data.root)"
    raise DataError(
        f"not one of {len(samples)} videos could be read, such as {samples[index].name}: {reason}; there is no score, "
        f"and nothing is written. {todo}"
    )


def counted(
    result: Predictions,
    samples: Sequence[Sample],
    class_names: tuple[str, ...],
    protocol: str,
    trained_on: Sequence[Sample] = (),
) -> Evaluation:
    """Predictions of labelled samples, with their scores. The protocol gets what is known of groups. DataError where
    there is no prediction, so no score."""
    if not result.predictions:
        _refuse_to_score_nothing(result, samples)
    judged = [sample for index, sample in enumerate(samples) if index not in result.damaged]
    if groups := describe_groups(trained_on, judged):
        protocol = f"{protocol}, {groups}"
    metrics = compute_metrics(result.predictions, len(class_names))
    damaged = {samples[index].name: reason for index, reason in result.damaged.items()}
    return Evaluation(metrics, result.predictions, damaged, protocol, class_names)
