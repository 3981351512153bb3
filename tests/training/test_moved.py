"""Videos that lie elsewhere by now, steps for which there is no clip, and scores of no videos."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

import evl
from evl.config import DataConfig, RunConfig, replace
from evl.data.manifests.manifest import read_manifest, write_manifest
from evl.data.splits import find_splits, moved_samples, old_root
from evl.errors import ConfigError, DataError, RunError
from evl.saving import read_card
from evl.training import train
from evl.training.run_folder import RunFolder
from evl.types import Sample
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"model": {"decoder": "linear", "taps": "last 1"}, "training": {"steps": 4, "save_every": 2, "eval_every": 0}}


def begun(config, folder, steps=2):
    """A run in ``folder`` that was stopped after some steps, with a checkpoint."""
    from evl.training import Interrupted

    def stop(report):
        if report.phase == "training" and report.step == steps:
            os.kill(os.getpid(), 15)

    with pytest.raises(Interrupted):
        train(replace(config, training={"save_every": 1}), folder, progress=stop)
    return folder


@pytest.fixture
def config(tiny_config, videos, tmp_path):
    shutil.copytree(videos, tmp_path / "old/videos")
    return replace(tiny_config, **QUICK, data={"path": str(tmp_path / "old/videos")})


@pytest.mark.parametrize("kind", ["folder", "list", "list with a root", "absolute list"])
def test_a_run_goes_on_where_its_videos_are(config, tmp_path, kind):
    old, new = tmp_path / "old/videos", tmp_path / "new"
    data = {}
    if kind != "folder":
        samples = read_manifest(old).samples
        file = {"list": old / "list.csv", "absolute list": tmp_path / "lists/list.csv"}.get(kind, tmp_path / "l/x.csv")
        write_manifest(file, samples)
        if kind == "list with a root":
            rows = "".join(f"{Path(one.path).relative_to(old)},{one.label}\n" for one in samples)
            file.write_text("path,label\n" + rows)
            data["root"] = str(old)
        data["path"] = str(file)
    config = replace(config, data=data)
    train(config, tmp_path / "unbroken")
    run = begun(config, tmp_path / "run")
    shutil.move(old, new)
    with pytest.raises(DataError, match=rf"all \d training videos are gone, such as .*`resume=True` and "
                       rf"`data.root=FOLDER`: the folder that now holds the content of {old}\."):  # fmt: skip
        train(None, run, resume=True)
    with pytest.raises(DataError, match=r"videos are gone, such as .*/nowhere/.* \(now .*/nowhere\)"):
        train(None, run, resume=True, settings=(f"data.root={tmp_path / 'nowhere'}",))
    result = train(None, run, resume=True, settings=(f"data.root={new}",))
    assert not result.damaged
    assert result.evaluation.metrics.num_videos == 4
    whole = evl.load(tmp_path / "unbroken").trainable_state()
    assert all(torch.equal(value, whole[name]) for name, value in result.model.trainable_state().items())
    assert all(
        Path(s.path).is_relative_to(new) for s in (*RunFolder(run).samples("train"), *RunFolder(run).samples("val"))
    )
    assert RunConfig.from_yaml(run / "config.yaml").data.root == str(new)


def test_it_may_move_twice_and_relative(config, tmp_path, monkeypatch):
    run = begun(config, tmp_path / "run")
    shutil.move(tmp_path / "old/videos", tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    begun_again = begun_on(run, "data.root=b")
    shutil.move(tmp_path / "b", tmp_path / "c")
    with pytest.raises(DataError, match=rf"the folder that now holds the content of {tmp_path}/b\."):
        train(None, begun_again, resume=True)
    assert not train(None, run, resume=True, settings=("data.root=c",)).damaged


def begun_on(run, *settings):
    from evl.training import Interrupted

    def stop(report):
        if report.phase == "training" and report.step == 3:
            os.kill(os.getpid(), 15)

    with pytest.raises(Interrupted):
        train(None, run, resume=True, settings=settings, progress=stop)
    return run


def test_some_are_gone_and_some_are_there(config, tmp_path, caplog):
    run = begun(config, tmp_path / "run")
    first, *_ = RunFolder(run).samples("train")
    os.unlink(first.path)
    with pytest.raises(RunError, match=r"1 of 8 training videos are gone.*data.max_damaged_share \(now 0.1\)"):
        train(None, run, resume=True)
    with caplog.at_level(logging.WARNING, "evl"):
        result = train(None, run, resume=True, settings=("data.max_damaged_share=0.5",))
    assert "1 of 8 training videos are gone" in caplog.text
    assert result.damaged == {first.path: "no such file"}


@pytest.mark.parametrize("share", ["0.1", "1"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_all_of_a_part_are_gone(config, tmp_path, share, split):
    run = begun(config, tmp_path / "run")
    for sample in RunFolder(run).samples(split):
        os.unlink(sample.path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(DataError, match=f"all . {'training' if split == 'train' else 'validation'} videos are gone"):
        train(None, run, resume=True, settings=(f"data.max_damaged_share={share}",))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_damage_that_was_a_missing_disk_is_forgotten(config, tmp_path):
    run = begun(config, tmp_path / "run")
    first, *_ = RunFolder(run).samples("train")
    shutil.move(first.path, tmp_path / "kept.mp4")
    begun_on(run, "data.max_damaged_share=0.5")
    shutil.move(tmp_path / "kept.mp4", first.path)
    assert train(None, run, resume=True, settings=("data.max_damaged_share=0.1",)).damaged == {}


def broken(path):
    path.write_bytes(b"no video")


def test_where_all_are_damaged_no_limit_helps(config, tmp_path):
    for path in (tmp_path / "old/videos").rglob("*.mp4"):
        broken(path)
    with pytest.raises(RunError, match=r"all 8 training videos are damaged|not one clip could be read in 4 steps"):
        train(replace(config, data={"max_damaged_share": 1.0}), tmp_path / "run")
    assert not (tmp_path / "run/model.json").exists()
    with pytest.raises(RunError, match="not one clip could be read in 1 steps"):
        train(replace(config, data={"max_damaged_share": 1.0}, training={"steps": 1}), tmp_path / "one")
    assert not (tmp_path / "one/model.json").exists()


def test_no_step_without_a_clip(config, tmp_path):
    """Batches of one, half of which are damaged: as many weight changes as there are clips, no decay in between."""
    from evl.runtime.distributed import World
    from evl.streams import Batch
    from evl.training.learner import Learner
    from evl.training.learners import Learners
    from tests.saving.test_saved import clips_for, make

    model = make("linear").train()
    config = replace(RunConfig(), training={"steps": 9, "batch_size": 2, "weight_decay": 0.5, "lr": 0.1})
    learner, world = Learner("a", config, model), World(0, 1, torch.device("cpu"))
    learners = Learners([learner])
    some = Batch(model.features(clips_for(model)), torch.tensor([0, 1]), (0, 1), {})
    none = Batch(None, torch.zeros(0, dtype=torch.long), (), {0: "is empty"})
    learners.step(0, [some], world)
    before = {name: value.clone() for name, value in model.trainable_state().items()}
    moments = [state["exp_avg"].clone() for state in learner.optimizer.state.values()]
    learners.step(1, [none, none], world)
    assert learner.totals.tolist() == [0, 0, 0]
    assert all(torch.equal(value, before[name]) for name, value in model.trainable_state().items())
    kept = (state["exp_avg"] for state in learner.optimizer.state.values())
    assert all(torch.equal(a, b) for a, b in zip(moments, kept, strict=True))
    learners.step(2, [none, some], world)
    assert any(not torch.equal(value, before[name]) for name, value in model.trainable_state().items())
    assert learner.num_clips == 4


def test_no_score_of_no_videos(config, tmp_path):
    """The trained model is saved, without a score; the run does not end well."""
    val = find_splits(config).splits["val"]
    for sample in val:
        broken(Path(sample.path))
    with pytest.raises(
        RunError, match=r"trained and saved in .*, but it has no score: not one of 4 videos could be read"
    ):
        train(replace(config, training={"eval_every": 2}), tmp_path / "run")
    assert read_card(tmp_path / "run").scores is None
    assert not (tmp_path / "run/metrics.json").exists()
    assert "top1" not in (tmp_path / "run/metrics.jsonl").read_text().replace("train_top1", "")
    model = evl.load(tmp_path / "run")
    with pytest.raises(DataError, match="not one of 4 videos could be read"):
        evl.evaluate(model, val)
    with pytest.raises(DataError, match="no videos to judge by"):
        evl.evaluate(model, [])


def test_a_sweep_without_readable_validation_videos_keeps_its_heads(config, tmp_path):
    from evl.training.sweeps.sweep import sweep

    for sample in find_splits(config).splits["val"]:
        broken(Path(sample.path))
    with pytest.raises(RunError, match=r"learners are trained, and in .*, but none was chosen: not one of 4 videos"):
        sweep(config, ["training.lr=1e-3,1e-4"], tmp_path / "sweep")
    assert (tmp_path / "sweep/learners/000/model.json").is_file()
    assert not (tmp_path / "sweep/best").exists()


def test_a_sweep_on_nothing_but_damage(config, tmp_path):
    from evl.training.sweeps.sweep import sweep

    for path in (tmp_path / "old/videos").rglob("*.mp4"):
        broken(path)
    config = replace(config, data={"max_damaged_share": 1.0}, training={"steps": 1})
    with pytest.raises(RunError, match="not one clip could be read in 1 steps"):
        sweep(config, ["training.lr=1e-3,1e-4"], tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_evaluating_a_run_whose_videos_moved(config, tmp_path, capsys):
    train(config, tmp_path / "run")
    wanted = json.loads((tmp_path / "run/metrics.json").read_text())["top1"]
    shutil.move(tmp_path / "old/videos", tmp_path / "new")
    options = ["evaluate", tmp_path / "run", "--workers=0", "--json"]
    code, out, err = run_command(capsys, *options)
    assert (code, out) == (1, "")
    assert "all 4 validation videos are gone" in err
    assert "--root FOLDER" in err
    code, out, _ = run_command(capsys, *options, f"--root={tmp_path / 'new'}")
    assert code == 0
    assert json.loads(out)["top1"] == wanted
    one = RunFolder(tmp_path / "run").samples("val")[0]
    os.unlink(tmp_path / "new" / one.label / Path(one.path).name)
    code, out, err = run_command(capsys, *options, f"--root={tmp_path / 'new'}")
    assert (code, json.loads(out)["num_videos"]) == (1, 3)
    assert "1 of 4 validation videos are gone" in err
    code, out, err = run_command(capsys, *options, f"--root={tmp_path / 'nowhere'}")
    assert (code, out) == (1, "")
    assert "gone" in err


def test_a_run_from_a_store_has_no_root():
    from evl.training.run import _resumed

    stored = replace(RunConfig(), data={"features": "/store"})
    with pytest.raises(ConfigError, match="opens no videos"):
        _resumed(stored, stored.with_settings(("data.root=/videos",)))


def test_the_folder_that_a_root_stands_for():
    samples = [Sample("/a/v/x/1.mp4"), Sample("/a/v/y/2.mp4")]
    assert old_root(DataConfig(path="/a/v"), samples) == "/a/v"
    assert old_root(DataConfig(path="/a/v/list.csv"), samples) == "/a/v"
    assert old_root(DataConfig(path="/l/list.csv", root="/a"), samples) == "/a"
    assert old_root(DataConfig(path="/l/list.csv"), samples) == "/a/v"
    assert old_root(DataConfig(path="/a/v/x", val_path="/a/v/y"), samples) == "/a/v"
    assert old_root(DataConfig(path="/a/vv"), samples) == "/a"
    parts = (Sample("/a/v/x/1.mp4", "x", 1.0, 2.0), Sample("/elsewhere/3.mp4", "y"))
    assert moved_samples(parts, "/a/v", "/b") == (Sample("/b/x/1.mp4", "x", 1.0, 2.0), Sample("/elsewhere/3.mp4", "y"))
