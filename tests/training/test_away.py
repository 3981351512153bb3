"""Videos that are away for a while: the run goes on, forgets it, and ends only if they stay away."""

import os
import shutil

import pytest

import evl
from evl.config import replace
from evl.errors import RunError
from evl.training import keeper, train
from evl.training.checkpoint import list_checkpoints
from evl.video.decode import missing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    """Reading itself does not wait, so that what the run does can be seen."""
    monkeypatch.setattr(missing, "PAUSES", ())


@pytest.fixture
def config(tiny_config, tmp_path):
    folder = shutil.copytree(tiny_config.data.path, tmp_path / "videos")
    training = {"steps": 12, "log_every": 1, "save_every": 3, "eval_every": 0}
    return replace(tiny_config, data={"path": str(folder), "max_damaged_share": 0.1}, training=training)


def moving(folder, monkeypatch, *, away_at, pauses):
    """Progress that moves the videos away after a step; they are back after so many pauses of the run."""
    slept = []

    def progress(report):
        if report.phase == "training" and report.step == away_at and folder.exists() and not slept:
            os.rename(folder, folder.with_name("away"))

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == pauses:
            os.rename(folder.with_name("away"), folder)

    monkeypatch.setattr(keeper.time, "sleep", sleep)
    return progress, slept


def test_a_run_survives_and_forgets(config, tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    progress, slept = moving(folder, monkeypatch, away_at=4, pauses=3)
    result = train(config, tmp_path / "run", progress=progress)
    assert slept == [0.25, 0.5, 1.0]
    assert (result.damaged, result.evaluation.damaged) == ({}, {})
    assert not (tmp_path / "run/damaged.csv").exists()
    assert evl.load(tmp_path / "run").predict(folder / "dark/0 video.mp4")


def test_a_run_whose_videos_stay_away_stops_and_can_be_resumed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "AWAY_SECONDS", 0.0)
    folder, out = tmp_path / "videos", tmp_path / "run"
    progress, _ = moving(folder, monkeypatch, away_at=4, pauses=99)
    with pytest.raises(RunError, match="training videos are gone, such as"):
        train(config, out, progress=progress)
    (line,) = [row for row in (out / "damaged.csv").read_text().splitlines() if "0 video" in row and "dark" in row] or [
        ""
    ]
    assert not line or line.endswith("no such file")
    steps = int(list_checkpoints(out / "checkpoints")[-1].stem.split("_")[-1])
    assert 4 < steps < 12
    with pytest.raises(evl.EVLError, match="training videos are gone, such as"):  # looked at anew
        train(None, out, resume=True)
    os.rename(folder.with_name("away"), folder)
    result = train(None, out, resume=True)
    assert result.damaged == {}
    assert not (out / "damaged.csv").exists()


def test_a_video_that_is_missing_at_the_end_is_listed_and_counts(config, tmp_path, monkeypatch):
    """One of eight is more than a tenth; before the end nothing is decided."""
    folder = tmp_path / "videos"
    train_only = replace(config, data={"val_path": str(shutil.copytree(folder, tmp_path / "val"))})

    def progress(report):
        if report.phase == "training" and report.step == 1:
            for path in sorted(folder.rglob("*.mp4"))[:2]:
                path.unlink(missing_ok=True)

    with pytest.raises(RunError, match="2 of 12 training videos are gone"):
        train(train_only, tmp_path / "run", progress=progress)
    raised = replace(train_only, data={"max_damaged_share": 0.5})
    shutil.rmtree(tmp_path / "run")
    for path in sorted((tmp_path / "val").rglob("*.mp4")):
        shutil.copy(path, folder / path.relative_to(tmp_path / "val"))
    result = train(raised, tmp_path / "run", progress=progress)
    assert sorted(result.damaged.values()) == ["no such file"] * 2
    assert len((tmp_path / "run/damaged.csv").read_text().splitlines()) == 3


def test_damage_is_still_damage_at_once(config, tmp_path, monkeypatch):
    folder = tmp_path / "videos"

    def progress(report):
        if report.phase == "training" and report.step == 1:
            for path in folder.rglob("*.mp4"):
                path.write_bytes(b"no video")

    with pytest.raises(RunError, match="training videos are damaged"):
        train(config, tmp_path / "run", progress=progress)
