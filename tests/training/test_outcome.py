"""The line at the end of a run: what was learned, by plain rules, and what to try next."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evl.config import RunConfig, replace
from evl.training import train
from evl.training.outcome import outcome_of
from evl.training.run_folder import RunFolder
from evl.types import Sample
from tests.helpers import metrics_of, run_command

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"


def metrics(hits, *counts):
    """Counts of videos by class, of which ``hits`` in all are right."""
    confusion = np.diag(counts)
    for y, count in enumerate(counts):
        wrong = min(count, sum(counts) - hits - int(confusion.sum() - confusion.trace()))
        confusion[y, y] -= wrong
        confusion[y, (y + 1) % len(counts)] += wrong
    return metrics_of(confusion)


def outcome(top1, judged, *, loss=0.1, classes=4, **settings):
    config = replace(RunConfig(), **{"training": {"steps": 200}, **settings})
    training = [Sample(f"{i}.mp4", f"class {i % classes}") for i in range(80)]
    return outcome_of(config, [(100, 2.0, 5.0), (200, loss, top1)], training, judged)


@pytest.mark.parametrize(
    ("kind", "top1", "judged"),
    [
        ("memorized", 98.0, metrics(16, 15, 15, 15, 15)),  # the issue's: loss 0.16, validation 27 %, chance 25 %
        ("memorized", 100.0, metrics(0, 1, 1)),  # even of two videos: none right where all are in training
        ("memorized", 60.0, metrics(16, 15, 15, 15, 15)),
        ("partly_learned", 60.0, metrics(1, 1, 1)),  # one of two is chance, but the interval reaches 91 %
        ("not_learned", 27.0, metrics(16, 15, 15, 15, 15)),
        ("not_learned", 30.0, metrics(0, 15, 15, 15, 15)),  # below chance
        ("partly_learned", 60.0, metrics(30, 15, 15, 15, 15)),
        ("partly_learned", 98.0, metrics(37, 15, 15, 15, 15)),  # 62 %: half as far as training
        ("learned", 98.0, metrics(40, 15, 15, 15, 15)),
        ("learned", 50.0, metrics(58, 15, 15, 15, 15)),  # augmentation makes training clips the harder ones
        ("not_learned", 26.0, metrics(54, 54, 2, 2, 2)),  # 90 %, by one class that nearly all are of
        ("learned", 100.0, metrics(60, 60)),  # a single class
        ("too_few", 98.0, metrics(2, 1, 1)),  # two of two: the interval begins at 34 %, below chance (50 %)
        ("learned", 98.0, metrics(6, 3, 3)),
        ("not_judged", 98.0, None),
        ("not_judged", 98.0, metrics_of(np.zeros((4, 4), int))),
    ],
)
def test_kinds(kind, top1, judged):
    found = outcome(top1, judged)
    assert found.kind == kind, found
    assert found.train_top1 == top1
    assert bool(found.advice) == (kind not in ("learned", "not_judged"))
    if judged is not None and judged.num_videos:
        assert (found.chance, found.val_top1) == (judged.chance, judged.top1)
    else:
        assert (found.chance, found.val_top1) == (25, None)


def test_the_sentence_names_all_and_what_to_try():
    line = outcome(98.4, metrics(16, 15, 15, 15, 15), loss=0.16).sentence
    assert line.startswith("memorized")
    assert "chance 25.0 %, training 98.4 % (loss 0.16), validation 26.7 % (95 % interval 17.1 to 39.0)" in line
    for part in (f"such as {CLIP}", "evl sweep", "clip.sampling=segment", "clip.num_frames=16", "docs/low-score.md"):
        assert part in line, line
    assert "\n" not in line
    assert "try" not in outcome(98.0, metrics(58, 15, 15, 15, 15)).sentence


def test_advice_leaves_out_what_is_done_already():
    judged = metrics(16, 15, 15, 15, 15)
    line = outcome(98, judged, backbone={"name": CLIP}, clip={"sampling": "segment", "num_frames": 16}).sentence
    for part in ("sampling", "num_frames", CLIP):
        assert part not in line
    config = replace(RunConfig(), training={"steps": 200}, data={"features": "store"})
    training = [Sample("a", "x"), Sample("b", "y")]
    found = outcome_of(config, [(200, 0.1, 100.0)], training, judged, 1)
    assert "(evl extract, evl sweep)" not in found.sentence
    assert "more clips of each video (10" in found.sentence
    assert "more clips of each" not in outcome_of(config, [(200, 0.1, 100.0)], training, judged, 10).sentence
    assert "evl sweep" not in outcome_of(config, [(200, 0.1, 100.0)], training, judged, 10, is_swept=True).sentence


def test_the_training_score_is_of_the_last_tenth_of_the_steps():
    training, judged = [Sample("a", "x"), Sample("b", "y")], metrics(5, 5, 5)
    config = replace(RunConfig(), training={"steps": 205})
    curve = [(step, 1.0, 10.0) for step in range(20, 181, 20)] + [(200, 0.2, 50.0), (205, 0.4, 100.0)]
    found = outcome_of(config, curve, training, judged)
    assert found.train_top1 == pytest.approx((50 * 0 + 100 * 5) / 5)  # 180–200 begins before 184.5
    curve[-2:] = [(190, 1.0, 10.0), (200, 0.2, 50.0), (205, 0.4, 100.0)]
    found = outcome_of(config, curve, training, judged)
    assert found.train_top1 == pytest.approx((50 * 10 + 100 * 5) / 15)
    assert found.train_loss == pytest.approx((0.2 * 10 + 0.4 * 5) / 15)
    assert outcome_of(config, [(7, 0.5, 60.0)], training, judged).train_top1 == 60
    assert outcome_of(config, [], training, judged) is None


def test_runs_tell_it_on_the_screen_in_python_and_in_their_folder(tiny_config, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(tiny_config.to_yaml())
    code, out, said = run_command(capsys, "train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "a")
    assert code == 0, said
    written = json.loads((tmp_path / "a/metrics.json").read_text())["outcome"]
    assert written["sentence"] in out
    assert written["chance"] == 50
    last = [line for line in RunFolder(tmp_path / "a").curve()][-1]
    assert (written["train_loss"], written["train_top1"]) == last[1:]
    # a run that is finished says the same again, though it trains no step
    result = train(None, tmp_path / "a", resume=True)
    assert result.outcome.sentence == written["sentence"]


def test_the_page_that_is_named_is_there():
    page = Path(__file__).parents[2] / "docs/low-score.md"
    text = page.read_text()
    for kind in ("memorized", "nothing was learned", "learned in part"):
        assert re.search(rf"^## .*{kind}", text, re.M | re.I), kind
