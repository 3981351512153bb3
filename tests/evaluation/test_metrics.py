"""Counts against plain arithmetic, and views averaged as softmax."""

import numpy as np
import pytest
import torch

import evl
from evl.evaluation import compute_metrics, mean_interval, wilson_interval
from evl.inference import predict_views, views_for
from evl.types import Prediction, Sample
from tests.helpers import assert_close


@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_counts(num_classes):
    rng = np.random.default_rng(num_classes)
    scores = rng.random((200, num_classes))
    labels = rng.integers(0, max(2, num_classes - 1), 200)  # the last class has no videos
    metrics = compute_metrics(
        [Prediction(str(i), tuple(row), int(y)) for i, (row, y) in enumerate(zip(scores, labels, strict=True))],
        num_classes,
    )
    order = scores.argsort(1)[:, ::-1]
    right = order[:, 0] == labels
    assert metrics.num_videos == 200
    assert metrics.chance == pytest.approx(100 * np.bincount(labels).max() / 200)
    assert metrics.top1 == pytest.approx(100 * right.mean())
    if num_classes > 5:
        assert metrics.top5 == metrics.to_dict()["top5"]
        assert metrics.top5 == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(1).mean())
    else:  # every video would be a hit
        assert metrics.top5 is None
        assert "top5" not in metrics.to_dict()
    assert metrics.mean_class_accuracy == pytest.approx(100 * np.mean([right[labels == y].mean() for y in set(labels)]))
    for y in range(num_classes):
        for z in range(num_classes):
            assert metrics.confusion[y, z] == ((labels == y) & (order[:, 0] == z)).sum()


def test_nothing_and_ties():
    assert compute_metrics([], 3).top1 == 0
    assert compute_metrics([], 3).chance == 0
    assert Prediction("x", (0.4, 0.4, 0.2)).best(2) == [0, 1]


def test_scores_are_the_mean_softmax_of_views(finished_run, videos):
    model = evl.load(finished_run)
    samples = [Sample(str(path)) for path in sorted(videos.rglob("*.mp4"))[:5]]
    result = predict_views([model], views_for(model, samples, num_clips=3, num_crops=3), None, batch_size=2)[0]
    assert [p.path for p in result.predictions] == [s.path for s in samples]
    for sample, prediction in zip(samples, result.predictions, strict=True):
        pre = model.card.preprocessing
        views = evl.read_views(sample.path, num_frames=3, stride=2, num_clips=3, num_crops=3, size=(32, 32),
                               mean=pre.mean, std=pre.std, interpolation=pre.interpolation, antialias=True)  # fmt: skip
        assert len(views) == 9
        with torch.no_grad():
            expected = torch.stack([model(view[None])[0].softmax(-1) for view in views]).mean(0)
        assert_close(torch.tensor(prediction.scores, dtype=torch.float32), expected)


def test_model_mode_is_left_alone(finished_run, videos):
    model = evl.load(finished_run).train()
    predict_views([model], views_for(model, [Sample(str(next(videos.rglob("*.mp4"))))]), None)
    assert model.training
    assert not model.backbone.training


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, the score method; all or none by hand: z² / (n + z²)
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (10, 10, 72.247, 100.0),
    ],
)
def test_wilson_interval(hits, total, low, high):
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=6e-3)


def test_wilson_interval_is_where_the_normal_score_is_the_quantile():
    """Its defining property: (p − p0)² = z² p0 (1 − p0) / n at both ends p0."""
    for hits, total in ((3, 7), (200, 203), (61, 600)):
        for end in wilson_interval(hits, total):
            p0 = end / 100
            assert abs(hits / total - p0) == pytest.approx(1.959963985 * (p0 * (1 - p0) / total) ** 0.5, rel=1e-7)


def test_no_videos_tell_nothing():
    assert wilson_interval(0, 0) == (0, 100)
    assert compute_metrics([], 3).top1_interval == (0, 100)
    for hits, total in ((3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="hits of"):
            wilson_interval(hits, total)


def test_mean_interval_over_seeds():
    # by hand: mean 44, deviation √2.5, t(4) = 2.77645
    assert mean_interval([42, 43, 44, 45, 46]) == pytest.approx((44, 44 - 1.96324, 44 + 1.96324), abs=1e-4)
    assert mean_interval([1.0, 3.0]) == pytest.approx((2, 0, 2 + 12.7062), abs=1e-4)
    assert mean_interval([97.0, 99.0]) == pytest.approx((98, 98 - 12.7062, 100), abs=1e-4)
    for values in ([1.0], [0.0] * 21):
        with pytest.raises(ValueError, match="expected 2 to 20"):
            mean_interval(values)
