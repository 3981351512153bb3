"""Training, extraction and sweeps in one call each."""

import re
import shutil

import numpy as np
import pytest
import torch

import evl
from evl.api.settings import config_for, sections_of
from evl.config import RunConfig
from evl.errors import ConfigError, EVLError
from evl.training.run import train as train_run
from tests.conftest import TINY

FAST = {**TINY, "training": {**TINY["training"], "steps": 2, "eval_every": 0}}
STORED = {name: FAST[name] for name in ("backbone", "model", "clip", "augment", "evaluation")}
FAST_STEPS = {"training": {"steps": 2, "batch_size": 4}}


@pytest.fixture(scope="module")
def store(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    result = evl.extract(videos, out=out, num_workers=0, val_fraction=0.34, dtype="float32", **STORED)
    assert (result.is_complete, result.num_damaged, result.num_clips) == (True, 0, 16)  # 8 of training, 4 by two views
    return out


def test_train_is_what_a_config_trains(videos, tiny_config, tmp_path):
    wanted = train_run(tiny_config, tmp_path / "wanted")
    sections = {name: fields for name, fields in TINY.items() if name != "data"}
    model = evl.train(data=videos, out=tmp_path / "got", num_workers=0, val_fraction=0.34, **sections)
    assert isinstance(model, evl.VideoClassifier)
    assert model.run.folder == tmp_path / "got"
    assert model.run.evaluation.predictions != ()
    scores = [[one.scores for one in run.evaluation.predictions] for run in (model.run, wanted)]
    assert scores[0] == scores[1]
    one, other = model.trainable_state(), wanted.model.trainable_state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_train_with_a_config_and_settings_by_name(tiny_config, tmp_path):
    model = evl.train(tiny_config, tmp_path / "run", steps=2, settings=["training.log_every=1"], **{"model.taps": [4]})
    written = RunConfig.from_yaml(tmp_path / "run/config.yaml")
    assert (written.training.steps, written.training.log_every, written.model.taps) == (2, 1, (4,))
    assert written.clip == tiny_config.clip
    assert model.run.evaluation.metrics.num_videos == 4


def test_a_model_of_a_store_gets_its_encoder(store, videos, tmp_path):
    model = evl.train(data=store, out=tmp_path / "run", training={"steps": 2, "batch_size": 4})
    assert model.backbone is not None
    assert model.run.model.backbone is None
    assert model.predict(videos / "dark/0 video.mp4").class_name in model.class_names
    stored = evl.evaluate(tmp_path / "run", store, num_workers=None)
    live = evl.evaluate(model)
    assert [one.path for one in stored.predictions] == [one.path for one in live.predictions]
    assert np.allclose([a.scores for a in stored.predictions], [b.scores for b in live.predictions], atol=1e-5)
    assert evl.evaluate(model, evl.open_store(store)).predictions == stored.predictions
    assert stored.top1 == stored.metrics.top1
    assert "from a store" in stored.protocol


def test_without_its_weights_a_model_of_a_store_takes_features(store, tmp_path, monkeypatch, videos):
    monkeypatch.setattr("evl.api.training.EMBEDDED", "")
    monkeypatch.setattr("evl.api.training.weights_on_disk", lambda name: None)
    model = evl.train(data=evl.open_store(store), out=tmp_path / "run", training={"steps": 1, "batch_size": 4})
    assert model.backbone is None
    with pytest.raises(ConfigError, match=r"its encoder, evl_clip_tiny, is not in memory; save the model"):
        model.predict(videos / "dark/0 video.mp4")


def test_sweep_takes_values_by_name(store, tmp_path):
    grid = {"lr": [1e-3, 1e-5], "model.temporal_conv": [True, False]}
    result = evl.sweep(data=store, out=tmp_path / "sweep", grid=grid, training={"steps": 2, "batch_size": 4})
    assert len(result.ranked) == 4
    assert {one.settings["training.lr"] for one in result.ranked} == {"0.001", "1e-05"}
    found = {RunConfig.from_yaml(tmp_path / f"sweep/learners/{i:03d}/config.yaml").training.lr for i in range(4)}
    assert found == {1e-3, 1e-5}
    assert evl.load(tmp_path / "sweep/best").class_names == ("bright", "dark")


def test_few_videos_a_class(store, tmp_path):
    small = {"training": {"steps": 2, "batch_size": 4}, "model.decoder": "linear"}
    result = evl.few_shot(data=store, out=tmp_path / "few", shots=[1, 2], draws=2, progress=False, **small)
    assert [(row.shots, len(row.top1), row.num_videos) for row in result.rows] == [(1, 2, 2), (2, 2, 4)]
    with pytest.raises(ConfigError, match="leave out `data`, `shots`, `draws`"):
        evl.few_shot(data=store, out=tmp_path / "few", shots=[1], draws=2, resume=True)


def test_what_it_will_cost_writes_nothing(store, videos, tmp_path):
    found = evl.estimate_extraction(videos, out=tmp_path / "other", num_workers=0, val_fraction=0.34, **STORED)
    assert (found.num_clips, found.clips_to_do, found.fits) == (16, 16, True)
    assert found.lines[0].startswith("16 clips (8 train videos × 1, 4 val videos × 2)")
    took = evl.estimate_training(data=store, training={"steps": 2, "batch_size": 4})
    assert (took.num_steps, took.measured) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_store_is_verified_by_a_sample(store):
    result = evl.verify_store(store, sample=3, seed=5, num_workers=0, progress=False)
    assert (len(result.clips), result.different, result.seed) == (3, (), 5)


def test_resume_goes_on(tiny_config, tmp_path):
    evl.train(tiny_config, tmp_path / "run")
    again = evl.train(out=tmp_path / "run", resume=True, settings=["training.log_every=1"])
    assert again.run.evaluation.metrics.num_videos == 4
    with pytest.raises(ConfigError, match=r"resume goes on with .*: leave out `data`, `steps`"):
        evl.train(out=tmp_path / "run", resume=True, data="videos", steps=3)


def test_names_of_settings():
    given = {"steps": 5, "clip": {"stride": 2}, "model.taps": "all", "decoder": "linear", "data.decoder": "pyav"}
    assert sections_of(given) == {
        "training": {"steps": 5}, "clip": {"stride": 2}, "model": {"taps": "all", "decoder": "linear"},
        "data": {"decoder": "pyav"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"batch_size": 3}, "batch_size is a setting of training and of evaluation: write training={'batch_size': …}"),
        ({"stepz": 3}, "no setting 'stepz'; did you mean steps"),
        ({"training.stepz": 3}, "no setting 'training.stepz'; did you mean steps?"),
        ({"trainning.steps": 3}, "no section 'trainning'; did you mean training?"),
        ({"training": 3}, "training=3: expected the section as a dict, such as training={'batch_size': 16}"),
        ({"steps": 3, "training": {"steps": 4}}, "training.steps is given twice"),
        ({"steps": 0}, "training.steps: Input should be greater than 0 (got 0)"),
        ({"stride": 3, "frames_per_second": 2.0}, "give clip.stride (by frames) or clip.frames_per_second"),
    ],
)
def test_wrong_settings_are_named(given, part):
    with pytest.raises(ConfigError) as error:
        config_for(**given)
    assert part in str(error.value)


def test_wrong_arguments_say_what_to_do(store, videos, tmp_path):
    with pytest.raises(ConfigError, match="Give `out`, the path of a new folder, not 1"):
        evl.train(data=videos, out=1)
    with pytest.raises(ConfigError, match="where to"):
        evl.train(data=videos)
    with pytest.raises(ConfigError, match=r"is a folder: expected a config.yaml; give videos as data="):
        evl.train(videos, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"a store has its own videos, decoded and split: leave out data.root"):
        evl.train(data=store, out=tmp_path / "run", root="elsewhere")
    with pytest.raises(ConfigError, match="expected the path of a folder of videos"):
        evl.train(data=3, out=tmp_path / "run")
    with pytest.raises(EVLError, match=r"grid: lr is 0.1; expected a list"):
        evl.sweep(data=store, out=tmp_path / "sweep", grid={"lr": 0.1})
    with pytest.raises(ConfigError, match="a store of features already"):
        evl.extract(store, out=tmp_path / "store")
    assert not list(tmp_path.iterdir())


def test_all_that_takes_long_shows_how_far_it_is(store, videos, tmp_path, monkeypatch, capsys):
    """By default; not with progress=False."""
    monkeypatch.setattr("evl.runtime.progress.BETWEEN_LINES", 0.0)
    quick = dict(num_workers=0, val_fraction=0.34, **STORED)
    run = tmp_path / "run"
    calls = {
        "training 2/2 steps": lambda **how: evl.train(data=store, out=run, **FAST_STEPS, **how),
        "training 2/2 steps  ": lambda **how: evl.sweep(
            data=store, out=tmp_path / "sweep", grid={"lr": [1e-3, 1e-4]}, **FAST_STEPS, **how
        ),
        "extracting 16/16 clips": lambda **how: evl.extract(videos, out=tmp_path / "store", **quick, **how),
        "evaluating 4/4 videos": lambda **how: evl.evaluate(run, store, **how),
        "embedding 12/12 videos": lambda **how: evl.embed(run, videos, num_workers=0, **how),
        "predicting 12/12 videos": lambda **how: evl.predict(evl.load(run), videos, **how),
        "predicting 6/6 videos": lambda **how: evl.load(run).predict(videos / "dark", **how),
        "embedding 6/6 videos": lambda **how: evl.load(run).embed(videos / "dark", **how),
        "checking 12/12 files": lambda **how: evl.check(videos, num_workers=0, **how),
    }
    for line, call in calls.items():
        capsys.readouterr()
        call()
        assert line in capsys.readouterr().err
    for name in ("run", "sweep", "store"):
        shutil.rmtree(tmp_path / name)
    for call in calls.values():
        call(progress=False)
    assert not re.search(r"\d/\d+ [a-z]", capsys.readouterr().err)  # the date of a log line does not match


def test_an_error_in_a_notebook_is_two_lines(tmp_path):
    """The innermost line outside evl that led there, and the sentence."""

    def mine():
        return evl.load(tmp_path / "nowhere")

    with pytest.raises(EVLError) as caught:
        mine()
    said = caught.value._render_traceback_()
    assert said[0].partition(": ")[2] == 'return evl.load(tmp_path / "nowhere")'
    assert said[1:] == [f"CheckpointError: {caught.value}"]
    assert EVLError("made by hand")._render_traceback_() == ["EVLError: made by hand"]
