"""Counts against plain arithmetic, and views averaged as softmax."""

import math
import pickle

import numpy as np
import pytest
import torch

import evl
from evl.errors import ConfigError, DataError
from evl.evaluation import METRICS, Judged, Metric, compute_metrics, mean_interval, wilson_interval
from evl.evaluation.metrics import find_metrics, require_metric
from evl.inference import predict_views, views_for
from evl.types import Prediction, Sample
from tests.helpers import assert_close, metrics_of


def judged(num_classes, num_videos=200, decimals=15):
    """(Judged, its predictions) of random scores; few ``decimals`` make many of them equal. No video has the last
    class."""
    rng = np.random.default_rng(num_classes)
    scores = rng.random((num_videos, num_classes)).round(decimals)
    labels = rng.integers(0, max(2, num_classes - 1), num_videos)
    predictions = [Prediction(str(i), tuple(row.tolist()), int(labels[i])) for i, row in enumerate(scores)]
    return Judged.of(predictions, tuple(map(str, range(num_classes)))), predictions


NOTHING = Judged.of([], "abc")


def plain(predictions, num_classes):
    """Every metric video by video and class by class, as the definitions say it: the twin of ``METRICS``."""
    found = {name: 0.0 for name in ("top1", "top5", "loss")}
    labels, taken = [one.label for one in predictions], [one.best(1)[0] for one in predictions]
    for one in predictions:
        found["top1"] += 100 / len(predictions) * (one.label == one.best(1)[0])
        found["top5"] += 100 / len(predictions) * (one.label in one.best(5))
        found["loss"] -= math.log(max(one.scores[one.label], 1e-12)) / len(predictions)
    recalls, f1s = [], []
    for y in range(num_classes):
        hits = sum(a == b == y for a, b in zip(labels, taken, strict=True))
        if y in labels:
            recalls.append(100 * hits / labels.count(y))
        if y in labels or y in taken:
            precision, recall = (hits / some.count(y) if y in some else 0 for some in (taken, labels))
            f1s.append(100 * 2 * precision * recall / (precision + recall) if hits else 0)
    found |= {"mean_class_accuracy": np.mean(recalls), "macro_f1": np.mean(f1s)}
    return found | {"chance": 100 * max(map(labels.count, labels)) / len(labels), "num_videos": len(labels)}


@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_every_metric_is_its_plain_twin(num_classes, decimals):
    found, predictions = judged(num_classes, decimals=decimals)
    wanted = plain(predictions, num_classes)
    if num_classes <= 5:  # every video would be a hit
        assert wanted.pop("top5") == pytest.approx(100)
    assert wanted.keys() == METRICS.keys() - ({"top5"} if num_classes <= 5 else set()) | {"num_videos"}
    assert compute_metrics(found).values() == pytest.approx(wanted)


@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_counts(num_classes):
    found, _ = judged(num_classes)
    scores, labels, metrics = found.scores, found.labels, compute_metrics(found)
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
    found = compute_metrics(NOTHING).values()
    assert found == dict.fromkeys(found, 0)
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
    assert compute_metrics(NOTHING).top1_interval == (0, 100)
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


def test_a_table_of_two_classes_by_hand():
    """7 of class a, 3 of b; of a 6 are right, of b 1. F1: 2·6/(12+1+2) and 2·1/(2+2+1)."""
    metrics = metrics_of([[6, 1], [2, 1]])
    wanted = {"top1": 70, "mean_class_accuracy": 100 * (6 / 7 + 1 / 3) / 2, "macro_f1": 100 * (12 / 15 + 2 / 5) / 2}
    assert {name: metrics.values()[name] for name in wanted} == pytest.approx(wanted)
    assert metrics.chance == 70
    assert metrics.loss == pytest.approx(-3 / 10 * math.log(1e-12))  # sure, and wrong


def test_what_is_written_of_metrics():
    metrics = compute_metrics(judged(6)[0], find_metrics(["tests.evaluation.own_metrics:nothing"]))
    told = metrics.to_dict()
    assert told["nothing"] is None
    assert told["top1_interval"] == list(wilson_interval(round(2 * metrics.top1), 200))
    assert "macro_f1_interval" not in told
    assert told["titles"]["top1"] == "top-1 (%)"
    assert told["titles"]["chance"] == "chance (%: always the most frequent class)"
    assert (told["titles"]["loss"], told["titles"]["nothing"]) == ("loss", "nothing")
    again = pickle.loads(pickle.dumps(metrics))  # as torchrun's processes gather it
    assert again.top5 == metrics.top5
    with pytest.raises(AttributeError, match="no metric 'top_1'; did you mean top1"):
        _ = metrics.top_1


def test_the_best_comes_first_and_what_is_no_number_last():
    metrics = [compute_metrics(judged(n)[0], find_metrics(["tests.evaluation.own_metrics:nothing"])) for n in (2, 6, 9)]
    for name, better in (("top1", max), ("loss", min)):
        first = min((one.scores[name] for one in metrics), key=lambda score: score.rank)
        assert first.value == better(one.scores[name].value for one in metrics)
    assert {one.scores[name].rank for one in metrics for name in ("nothing", "chance")} == {math.inf}
    assert metrics[0].scores["nothing"].text() == "no number"
    assert "chance" not in metrics[0].comparable
    high, low = (Metric(lambda judged, value=value: value, "own") for value in (math.inf, -math.inf))
    assert all(one.rank == math.inf for one in compute_metrics(NOTHING, {"a": high, "b": low}).scores.values())


def test_own_metrics():
    found = find_metrics(["tests.evaluation.own_metrics:worst_class", "tests.evaluation.own_metrics:brier", "top1"])
    assert list(found) == [*METRICS, "worst_class", "brier"]
    assert (found["worst_class"].title, found["brier"].title) == ("worst class", "Brier score")
    one, predictions = judged(3)
    values = compute_metrics(one, found)
    assert values.worst_class == pytest.approx(min(a for a in values.class_accuracy() if a is not None))
    brier = [sum((s - (y == p.label)) ** 2 for y, s in enumerate(p.scores)) for p in predictions]
    assert values.brier == pytest.approx(np.mean(brier))
    assert values.scores["brier"].text(interval=True).startswith(f"{values.brier:.4g} (0.")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("worst_class", "expected the import path of your own metric, such as my_module:my_metric"),
        ("tests.evaluation.own_metrics:worst", "has no worst; did you mean worst_class"),
        ("tests.evaluation.own_metrics:NAMES", "is no function"),
        ("tests.evaluation.own_metrics:Counter", "is no function"),
        ("tests.evaluation.own_metrics:top1", "there is top1 already"),
        ("tests.evaluation.own_metrics:protocol", "there is protocol already"),
        ("tests.evaluation.own_metrics:values", "there is values already"),
        ("no_such_module:metric", "Python finds no module no_such_module"),
        ("os:getcwd", "os is a module of Python itself"),
    ],
)
def test_what_is_no_metric(path, message):
    with pytest.raises(ConfigError) as problem:
        find_metrics([path])
    assert message in str(problem.value)


def test_a_metric_that_fails_is_named():
    for name in ("fails", "a_text", "writes"):
        metrics = find_metrics([f"tests.evaluation.own_metrics:{name}"])
        with pytest.raises(DataError, match=f"the metric {name} failed on 200 videos: "):
            compute_metrics(judged(3)[0], metrics)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_1", "no such metric; did you mean top1"),
        ("accuracy", "did you mean mean_class_accuracy"),
        ("my_module:mine", "name it in evaluation.metrics too, and here mine"),
        ("chance", "is the same for every model"),
        ("top5", "says nothing of 5 classes, only of 6 or more"),
    ],
)
def test_what_cannot_be_selected_by(name, message):
    with pytest.raises(ConfigError) as problem:
        require_metric(name, METRICS, 5)
    assert message in str(problem.value)
    assert require_metric("top5", METRICS, 6).title == "top-5"
