"""Class names of any signs: a model with them is saved, read, judged, shown and drawn, and they stay what they are."""

import random

import numpy as np
import pytest
import torch

import evl
from evl.cli.show_evaluation import show_evaluation
from evl.errors import ConfigError
from evl.evaluation import Evaluation, Judged, compute_metrics, read_predictions
from evl.runtime.text import STEERING
from evl.types import Prediction
from tests.mutations import TEXTS, at_most_one_sentence, bounded
from tests.saving.test_saved import make

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread", "real_pictures")]
SIGNS = [
    *"$_^{}\\%#&~`<>|\"'[]()*=+-@;:, .",
    "\x1b",
    "\x07",
    "\x85",
    "\u2028",
    "\u200b",
    "\u202e",
    "\u0301",
    "ü",
    "日",
    "\U0001f600",
    "\ufffe",
]


def name_of(rng):
    if rng.random() < 0.4:
        return rng.choice(TEXTS)
    return "".join(rng.choice([*SIGNS, *"abc"]) for _ in range(rng.choice([1, 3, 8, 60])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("named") / "model"
    make("linear").save_pretrained(path)
    return path


@pytest.mark.parametrize("seed", range(300))
def test_any_names(tmp_path, folder, capsys, seed):
    rng = random.Random(seed)
    model = evl.load(folder)
    with bounded():
        before = model.class_names
        with at_most_one_sentence(ConfigError):
            model.class_names = [name_of(rng) for _ in range(3)]
        names = model.class_names
        if names == before:
            return
        model.save_pretrained(tmp_path / "model")
        assert evl.load(tmp_path / "model").class_names == names
        paths, labels = ("a.mp4", "b.mp4", "c.mp4"), np.array([0, 1, 2])
        scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]], dtype=torch.float64).numpy()
        predictions = tuple(
            Prediction(path, tuple(own), int(label), None, None, names)
            for path, own, label in zip(paths, scores.tolist(), labels, strict=True)
        )
        metrics = compute_metrics(Judged(paths, labels, scores.argmax(1), scores, names))
        show_evaluation(Evaluation(metrics, predictions, {}, "three videos", names), tmp_path / "out", seed % 2 == 0)
        assert (tmp_path / "out/confusion.png").is_file()
        assert read_predictions(tmp_path / "out").class_names == names
    shown = capsys.readouterr().out
    assert not STEERING.search(shown.replace("\n", ""))
