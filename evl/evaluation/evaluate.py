"""A model against labelled videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evl.data.dataset import Files
from evl.distributed import World
from evl.evaluation.metrics import Metrics, compute_metrics
from evl.inference.predictor import predict_views, views_for
from evl.models import VideoClassifier
from evl.streams import Stream
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
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Predicts every sample once and counts. Labels must be among the model's class names (KeyError otherwise).

    Views are the model's own unless given; ``files``: the samples', if they were read before.
    Under torchrun every process gets the same, whole result.
    """
    stream = views_for(
        model,
        samples,
        labels_of(samples, model.class_names),
        num_clips=num_clips,
        num_crops=num_crops,
        num_workers=num_workers,
        precision=precision,
        files=files,
    )
    return evaluate_views([model], stream, batch_size=batch_size, world=world, progress=progress)[0]


def evaluate_views(
    models: Sequence[VideoClassifier],
    stream: Stream,
    *,
    batch_size: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Evaluation]:
    """Models of the same classes on every video of a stream of views, in one pass over it."""
    labels = labels_of(stream.samples, models[0].class_names)
    results = predict_views(models, stream, labels, batch_size=batch_size, world=world, progress=progress)
    evaluations = []
    for model, result in zip(models, results, strict=True):
        protocol = protocol_of(model, stream, len(result.predictions))
        metrics = compute_metrics(result.predictions, len(model.class_names))
        damaged = {stream.samples[index].name: reason for index, reason in result.damaged.items()}
        evaluations.append(Evaluation(metrics, result.predictions, damaged, protocol, model.class_names))
    return evaluations


def protocol_of(model: VideoClassifier, stream: Stream, num_videos: int) -> str:
    """How a model saw the videos of a stream, on one line: no score is printed without it."""
    views = stream.views
    return model.card.protocol(num_videos, views.num_clips, views.num_crops, views.precision) + views.note


def labels_of(samples: Sequence[Sample], class_names: Sequence[str]) -> list[int]:
    """The number of each sample's class; KeyError for a label that is none of them."""
    index_of = {name: y for y, name in enumerate(class_names)}
    return [index_of[sample.label] for sample in samples]
