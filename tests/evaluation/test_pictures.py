"""Pictures of scores: a short title, and how it was measured in small type and in the file's metadata."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from evl.config import RunConfig
from evl.evaluation import Evaluation, write_evaluation
from evl.training.sweeps import plot as sweep_plot
from evl.training.sweeps.plot import write_sweep
from evl.training.sweeps.results import LearnerResult, SweepResult
from tests.helpers import metrics_of

pytestmark = pytest.mark.usefixtures("real_pictures")
PROTOCOL = (
    "evl on vit_base_patch16_clip_quickgelu_224.openai, 8x16 frames, 3x1 views, 224x224, bf16, softmax averaged, "
    "120 videos, from a store (tokens, float16)"
)


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    return figures


def evaluation(*rows):
    names = tuple(f"class {y}" for y in range(len(rows)))
    return Evaluation(metrics_of(np.array(rows)), (), {}, PROTOCOL, names)


def test_no_text_of_a_picture_is_mathematics(tmp_path, drawn):
    write_evaluation(tmp_path, replace(evaluation([3, 1], [5, 3]), class_names=("$_$", "\\frac"), protocol="$^$"))
    texts = {text.get_text(): text for text in drawn[0].findobj(Text)}
    assert {"$_$", "\\frac", "$^$", "label"} <= set(texts)
    assert not any(text.get_parse_math() or text.get_usetex() for text in drawn[0].findobj(Text))


def test_a_picture_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("no such glyph")

    write_evaluation(tmp_path, evaluation([3, 1], [5, 3]))
    monkeypatch.setattr(Figure, "savefig", fail)
    write_evaluation(tmp_path, evaluation([3, 1], [5, 2]))
    assert "confusion.png could not be drawn (ValueError: no such glyph)" in caplog.text
    assert {file.name for file in tmp_path.iterdir()} == {"predictions.parquet", "metrics.json", "confusion.csv"}
    heads = [LearnerResult(0, {"training.lr": "1"}, 10, ((1, 1e-3, 2.0, 50.0),), evaluation([3, 1], [5, 3]), None)]
    write_sweep(tmp_path, SweepResult(tmp_path, RunConfig(), tuple(heads)))
    assert "sweep.png could not be drawn" in caplog.text
    assert (tmp_path / "sweep.json").is_file()


def test_confusion_has_a_short_title_and_its_protocol_below(tmp_path, drawn):
    write_evaluation(tmp_path, evaluation([3, 1], [5, 3]))
    (figure,) = drawn
    assert figure.get_suptitle() == "top-1 50.0 %  ·  chance 66.7 %"
    assert " ".join(figure.get_supxlabel().split()) == PROTOCOL
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.text["Description"] == PROTOCOL
        assert picture.text["Title"] == figure.get_suptitle()
    below = figure._supxlabel.get_window_extent()
    assert below.x0 >= 0
    assert below.x1 <= figure.bbox.x1  # not cut off
    assert figure._supxlabel.get_fontsize() < figure._suptitle.get_fontsize()


@pytest.mark.parametrize("steps", [(1,), (1, 2), (2,), (20, 40, 45), (5, 10, 15, 20, 25), (300, 600, 900)])
def test_a_sweep_shows_chance_and_whole_steps(tmp_path, drawn, steps):
    curve = tuple((step, 1e-3, 2.0 / step, 50.0) for step in steps)
    learners = [
        LearnerResult(n, {"training.lr": lr}, 10, curve, evaluation([3, 1 + n], [5, 3]), None)
        for n, lr in enumerate(("1e-3", "1e-4"))
    ]
    sweep_plot.draw(tmp_path / "sweep.png", SweepResult(tmp_path, RunConfig(), tuple(learners)))
    settings, losses = drawn[0].axes[:2]
    at = [line.get_ydata()[0] for line in settings.get_lines() if line.get_linestyle() == "--"]
    assert at == [pytest.approx(100 * 8 / 12)]
    assert any(text.get_text() == "chance 66.7 %" for text in settings.texts)
    low, high = losses.get_xlim()
    shown = [label.get_text() for label in losses.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert shown
    assert all(text.isdecimal() for text in shown), shown
