"""Few videos per class, drawn again and again from a store."""

import json

import numpy as np
import pytest
import torch

import evl
from evl.config import RunConfig, replace
from evl.data.manifests.manifest import read_manifest
from evl.errors import ConfigError, NotFiniteError, RunError
from evl.evaluation import evaluate_views, load_for_store, mean_interval, views_of_store
from evl.extraction.extract import extract
from evl.runtime.distributed import World
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.training import train
from evl.training.few_shots import few_shot as module
from evl.training.few_shots.few_shot import draw_videos, few_shot
from evl.training.few_shots.report import FewShotResult, Shots, write_few_shot
from tests.conftest import TINY
from tests.helpers import assert_close, run_command


@pytest.fixture(scope="module")
def store(videos, tmp_path_factory):
    """Four training videos of each of two classes, two clips each."""
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(videos)}})
    folder = tmp_path_factory.mktemp("few") / "store"
    extract(config, folder, StoreOptions(form="maps", clips_per_video=2))
    return folder


@pytest.fixture
def config(store):
    training = {**TINY["training"], "steps": 5}
    return replace(RunConfig(), **{**TINY, "data": {"features": str(store)}, "training": training})


def test_draws_are_of_each_class_and_their_own():
    labels = [0, 1, 0, 1, 0, 1, 0, 0, 2]
    seen = set()
    for draw in range(30):
        chosen = draw_videos(labels, 3, 2, seed=3, draw=draw, without=(4,))
        assert chosen == draw_videos(labels, 3, 2, seed=3, draw=draw, without=(4,))
        assert [labels[index] for index in chosen] == [0, 0, 1, 1, 2]  # all that a small class has
        assert len(set(chosen)) == 5
        seen.update(chosen)
    assert seen == set(range(9)) - {4}
    assert draw_videos(labels, 3, 2, seed=4, draw=0) != draw_videos(labels, 3, 2, seed=3, draw=0)


@pytest.mark.usefixtures("real_pictures")
def test_means_over_draws(config, store, tmp_path, monkeypatch):
    result = few_shot(config, tmp_path / "out", shots=(1, 3), draws=2, keep_runs=True)
    assert [(row.shots, row.num_videos, row.batch_size, row.steps) for row in result.rows] == [
        (1, 2, 2, 5),
        (3, 6, 4, 5),
    ]
    written = json.loads((tmp_path / "out/shots.json").read_text())
    for row, told in zip(result.rows, written["shots"], strict=True):
        assert (row.mean, row.low, row.high) == mean_interval(row.top1)
        assert told["top1"] == list(row.top1)
        assert told["mean"] == pytest.approx(np.mean(told["top1"]))
    assert "over 2 draws of training videos" in written["interval"]
    assert written["chance"] == 50
    assert written["protocol"].endswith("4 videos, from a store (maps, float16)")
    assert (tmp_path / "out/shots.png").read_bytes().startswith(b"\x89PNG")
    # what was kept is what was counted: an ordinary model, of the videos it was drawn
    run = tmp_path / "out/runs/03_shots_draw_2"
    assert len(read_manifest(run / "train.csv").samples) == 6
    opened = FeatureStore(store)
    model = load_for_store(run, opened)
    (again,) = evaluate_views([model], views_of_store(model, opened))
    assert again.metrics.top1 == result.rows[1].top1[1]
    assert evl.load(run).class_names == ("bright", "dark")
    # the same again, with no room to keep features: they are made in every step
    monkeypatch.setattr("evl.streams.memory.KEPT_BYTES", 0)
    same = few_shot(config, tmp_path / "same", shots=(3,), draws=2, keep_runs=True)
    assert same.rows[0].top1 == result.rows[1].top1
    states = [evl.load(tmp_path / name / "runs/03_shots_draw_2").trainable_state() for name in ("out", "same")]
    for name, value in states[0].items():
        if not name.endswith("k_proj.bias"):
            assert_close(states[1][name], value, floor=1e-7)


def test_a_head_is_the_one_that_training_makes(config, store, tmp_path, monkeypatch):
    """All videos of all classes, in the order of a run: few-shot's short loop is the long one."""
    config = replace(config, training={"eval_every": 0})
    train(config, tmp_path / "run")
    monkeypatch.setattr(module, "draw_videos", lambda labels, *_, **__: list(range(len(labels))))
    few_shot(config, tmp_path / "few", shots=(4,), draws=2, keep_runs=True)
    state, other = (evl.load(tmp_path / f"few/runs/04_shots_draw_{n}").trainable_state() for n in (1, 2))
    for name, value in evl.load(tmp_path / "run").trainable_state().items():
        if not name.endswith("k_proj.bias"):
            assert_close(state[name], value, floor=1e-7)
    assert not torch.equal(state["head.linear.weight"], other["head.linear.weight"])  # the draws' seeds differ


def test_what_was_stopped_goes_on(config, tmp_path):
    """What is done is not done again, and all comes to what it would have come to."""
    whole = few_shot(config, tmp_path / "whole", shots=(1, 2, 3), draws=2)

    def stop(report):
        if "3 videos" in report.note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        few_shot(config, tmp_path / "parts", shots=(1, 2, 3), draws=2, progress=stop)
    with pytest.raises(RunError, match="go on with `resume=True`"):
        few_shot(config, tmp_path / "parts", shots=(1,))
    notes = set()
    parts = few_shot(None, tmp_path / "parts", resume=True, progress=lambda report: notes.add(report.note))
    assert not any("1 videos" in note or "2 videos" in note for note in notes)
    assert [row.top1 for row in parts.rows] == [row.top1 for row in whole.rows]
    assert (parts.protocol, parts.chance) == (whole.protocol, whole.chance)
    with pytest.raises(RunError, match="finished already"):
        few_shot(None, tmp_path / "parts", resume=True)
    with pytest.raises(ConfigError, match="`shots`, `draws` cannot change when a run goes on"):
        few_shot(config, tmp_path / "parts", shots=(1,), draws=3, resume="auto")
    again = few_shot(config, tmp_path / "parts", shots=(1, 2, 3), draws=2, resume="auto")
    assert [row.top1 for row in again.rows] == [row.top1 for row in whole.rows]


def test_from_the_command_line(store, tmp_path, capsys):
    arguments = ("train", "--features", store, "--out", tmp_path / "out", "--shots", "1,9", "--draws", "2")
    code, out, said = run_command(capsys, *arguments, "--set", "training.steps=2", "model.decoder=linear")
    assert code == 0, said
    assert "videos per class" in out
    assert "over 2 draws" in out
    assert "only 2 draws: " in out
    assert "only 2 draws: " in said
    assert "95 % interval of the mean" not in said
    assert "2 of 2 classes have fewer than 9 training videos" in " ".join(said.split())
    code, _, said = run_command(capsys, *arguments)
    assert code == 1
    assert "not empty" in said


def test_what_cannot_be_is_told(config, store, videos, tmp_path, capsys):
    for wrong, sentence in (
        (dict(shots=(2, 1)), "expected rising numbers of videos"),
        (dict(shots=(0,)), "expected rising numbers of videos"),
        (dict(shots=(1,), draws=1), "2 to 20"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            few_shot(config, tmp_path / "out", **wrong)
    with pytest.raises(ConfigError, match="evl extract"):
        few_shot(replace(config, data={"features": None, "path": str(videos)}), tmp_path / "out", shots=(1,))
    with pytest.raises(ConfigError, match="new models"):
        few_shot(replace(config, training={"init": "a model"}), tmp_path / "out", shots=(1,))
    with pytest.raises(RunError, match=r"lower training\.lr"):
        few_shot(replace(config, training={"lr": 1e30}), tmp_path / "blown", shots=(1,), draws=2)
    assert not (tmp_path / "out").exists()
    code, _, said = run_command(capsys, "train", "--features", store, "--out", tmp_path / "out", "--shots", "a few")
    assert code == 2
    assert "such as 1,2,4,8,16" in said


def test_intervals_that_mean_little_say_so(config, tmp_path):
    def result(*draws):
        rows = tuple(Shots(2**i, top1, *mean_interval(top1), 2, 5, 2, (0.1,)) for i, top1 in enumerate(draws))
        return FewShotResult(rows, len(draws[0]), "some protocol", {}, tmp_path)

    usual = result((40.0, 50.0, 60.0), (50.0, 50.0, 50.0))
    assert [row.interval for row in usual.rows] == ["25.2–74.8", "none: all equal"]
    assert "no interval for 2 videos per class, because all draws have the same score" in usual.what_the_interval_is
    assert "means little" not in usual.what_the_interval_is
    assert "with only 2 draws it means little" in result((40.0, 50.0)).what_the_interval_is
    # of two draws there is a range, not an interval from 0 to 100
    two = result((40.0, 50.0))
    assert two.rows[0].interval == "only 2 draws: 40.0 and 50.0"
    write_few_shot(two, config)
    written = json.loads((tmp_path / "shots.json").read_text())
    assert (written["shots"][0]["low"], written["shots"][0]["high"]) == (None, None)
    assert "no interval" in written["interval"]
    write_few_shot(usual, config)
    written = json.loads((tmp_path / "shots.json").read_text())
    assert written["interval"] == usual.what_the_interval_is
    assert [row["low"] is None for row in written["shots"]] == [False, True]


def test_scores_that_are_not_finite_name_the_draw():
    def judge(models, progress):
        raise NotFiniteError("a.mp4: what the model makes of it is not finite", (1,))

    runs = object.__new__(module._Runs)
    runs.world, runs.train, runs.judge = World(0, 1, torch.device("cpu")), lambda *arguments: None, judge
    with pytest.raises(RunError, match=r"4 videos per class, draw 2: the scores .* not finite; lower training.lr"):
        runs.row(4, 3, lambda report: None, (0, 1), None)
