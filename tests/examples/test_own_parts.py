"""The files in examples/ do what they say, from outside the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import evl
from evl.errors import ConfigError
from tests.helpers import run_command

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SMALL = ("training.steps=4", "training.batch_size=4", "training.eval_every=0", "clip.num_frames=3", "clip.stride=2",
         "backbone.image_size=32", "model.taps=last 2", "data.num_workers=0", "data.val_fraction=0.34",
         "evaluation.num_clips=1")  # fmt: skip


@pytest.fixture
def run(capsys, monkeypatch):
    """stdout of a command that ends well, stderr of one that does not; it finds modules in ``path``."""

    def call(*arguments, path=EXAMPLES, code=0):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(path))
            if path != EXAMPLES:
                patch.setattr(sys, "path", [one for one in sys.path if one != str(EXAMPLES)])
                for name in ("new_decoder", "new_encoder", "new_metric"):
                    patch.delitem(sys.modules, name, raising=False)
            found, out, err = run_command(capsys, *arguments)
        assert found == code, err
        return out if code == 0 else err

    return call


@pytest.mark.slow  # the default tests train it in the process of the tests
def test_a_new_decoder_in_a_process_of_its_own(videos, tmp_path):
    """As a user would: the module is found by PYTHONPATH alone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "evl", "train", "--data", videos, "--out", tmp_path / "run", "--set", *SMALL]
    command += ["model.decoder=new_decoder:GatedPool", "model.options={hidden: 5}"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_decoder(videos, tmp_path, monkeypatch, run):
    """Trained through the command line, saved, loaded in Python, used, and refused where it cannot be imported."""
    own = ("model.decoder=new_decoder:GatedPool", "model.options={hidden: 5}")
    run("train", "--data", videos, "--out", tmp_path / "run", "--set", *SMALL, *own)
    video = next((videos / "bright").iterdir())
    said = json.loads(run("predict", tmp_path / "run", video, "--json"))
    wrong = run("predict", tmp_path / "run", video, path=tmp_path, code=2)
    assert "Python finds no module new_decoder" in wrong
    assert "PYTHONPATH" in wrong

    monkeypatch.syspath_prepend(str(EXAMPLES))
    model = evl.load(tmp_path / "run")
    assert type(model.decoder).__name__ == "GatedPool"
    assert model.decoder.gates[0][0].out_features == 5
    assert json.dumps(said).count(str(video))
    with pytest.raises(ConfigError, match="GatedPool has no module"):
        evl.explain(model, torch.zeros(1, 3, 3, 32, 32))
    model.save_pretrained(tmp_path / "again")
    clips = torch.randn(2, 3, 3, 32, 32)
    assert torch.equal(evl.load(tmp_path / "again")(clips), model(clips))


def test_a_new_encoder(videos, tmp_path, monkeypatch, run):
    """A video encoder with a token map of every two frames: trained, saved, loaded, judged, explained."""
    settings = [one for one in SMALL if not one.startswith(("clip.num_frames", "backbone"))]
    own = ("backbone.name=new_encoder:TubeletEncoder", "clip.num_frames=6", "model.decoder=evl")
    run("train", "--data", videos, "--out", tmp_path / "run", "--set", *settings, *own)
    video = next((videos / "bright").iterdir())
    scores = json.loads(run("predict", tmp_path / "run", video, "--json"))
    assert "Python finds no module new_encoder" in run("predict", tmp_path / "run", video, path=tmp_path, code=1)
    said = run(
        "train", "--data", videos, "--out", tmp_path / "odd", "--set", *settings, own[0], "clip.num_frames=3", code=2
    )
    assert "take a multiple of 2" in said
    said = run("extract", "--data", videos, "--out", tmp_path / "store", "--set", *settings, *own, code=1)
    assert "train on the videos instead" in said

    monkeypatch.syspath_prepend(str(EXAMPLES))
    model = evl.load(tmp_path / "run")
    assert model.decoder.layers[0].temporal.position.shape == (3, 48)
    clips = torch.randn(2, 6, 3, 32, 32)
    shown = evl.explain(model, clips)
    assert shown.attention.shape == (2, 2, 3, 4, 4)
    assert scores
    model.save_pretrained(tmp_path / "whole", with_backbone=True)
    whole = evl.load(tmp_path / "whole")
    assert torch.equal(whole(clips), model(clips))
    assert whole.card.origin.source == "new_encoder:TubeletEncoder"
    with pytest.raises(ValueError, match=r"clips of 5 frames; .* takes multiples of 2"):
        model(clips[:, :5])


def test_a_new_metric(videos, tmp_path, monkeypatch, run):
    """Trained and selected by, judged later by another, and refused where it cannot be imported."""
    own = ("evaluation.metrics=new_metric:calibration_error", "training.select_by=calibration_error")
    settings = [one for one in SMALL if not one.startswith("training.eval_every")] + ["training.eval_every=2"]
    said = run("train", "--data", videos, "--out", tmp_path / "run", "--set", *settings, *own)
    assert "calibration error" in said
    assert "the best by calibration error of these videos" in said
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    errors = [line["val_calibration_error"] for line in lines if "val_calibration_error" in line]
    assert len(errors) == 2
    best = json.loads((tmp_path / "run/best/model.json").read_text())["scores"]
    assert best["calibration_error"] == min(errors)
    judged = ("evaluate", tmp_path / "run", "--out", tmp_path / "judged", "--json")
    wrong = run(*judged, path=tmp_path, code=2)
    assert "evaluation.metrics=new_metric:calibration_error: Python finds no module new_metric" in wrong
    assert "worst_class" not in json.loads(run(*judged, "--metric", "top1", path=tmp_path))  # the way out
    found = json.loads(run(*judged, "--metric", "new_metric:worst_class"))

    monkeypatch.syspath_prepend(str(EXAMPLES))
    from new_metric import calibration_error, worst_class

    evl.load(tmp_path / "run").save_pretrained(tmp_path / "shared")
    assert "| calibration error (%) |" in (tmp_path / "shared/README.md").read_text()
    saved = evl.read_predictions(tmp_path / "judged")
    assert found["worst_class"] == worst_class(saved)
    sure, right = saved.scores.max(1), saved.predicted == saved.labels
    gaps = {int(min(9, score * 10)): 0.0 for score in sure}
    for score, hit in zip(sure, right, strict=True):
        gaps[int(min(9, score * 10))] += score - hit
    assert calibration_error.compute(saved) == pytest.approx(100 * sum(map(abs, gaps.values())) / len(saved), rel=1e-5)
    with pytest.raises(ConfigError, match="did you mean worst_class"):
        evl.evaluate(tmp_path / "run", metrics=["new_metric:worst_clas"])
