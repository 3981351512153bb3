"""Whole runs on collections as they are: folders of frames, and damaged files among good ones."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from evl.config import RunConfig, replace
from evl.data.check import check_samples
from evl.training import train
from tests.conftest import TINY
from tests.damage import make_damaged
from tests.helpers import numbered_frames, run_command, write_video


def test_folders_of_frames_are_trained_on_checked_and_copied(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for label, level in (("bright", 200), ("dark", 40)):
        for video in range(4):
            folder = tmp_path / "videos" / label / f"v{video}"
            folder.mkdir(parents=True)
            for i in range(9):
                picture = rng.normal(level, 20, (40, 56, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(folder / f"{i}.jpg")
    (tmp_path / "videos/dark/v0/3.jpg").write_bytes(b"no picture")
    code, out, _ = run_command(capsys, "check", tmp_path / "videos", "--workers", 0)
    assert code == 1
    assert "8 videos" in out
    assert "frame 3.jpg" in out
    settings = {**TINY, "data": {**TINY["data"], "path": str(tmp_path / "videos"), "max_damaged_share": 0.5}}
    result = train(replace(RunConfig(), **settings), tmp_path / "run")
    assert result.evaluation.metrics.num_videos + len(result.damaged) + len(result.evaluation.damaged) > 0
    found = {**result.damaged, **result.evaluation.damaged}
    assert list(found) == [str(tmp_path / "videos/dark/v0")]
    code, out, _ = run_command(capsys, "predict", tmp_path / "run", tmp_path / "videos/bright/v1")
    assert code == 0
    code, out, _ = run_command(capsys, "prepare", tmp_path / "videos", "--out", tmp_path / "small", "--workers", 1)
    assert code == 1  # the damaged one
    assert (tmp_path / "small/bright/v1.mp4").exists()
    assert not (tmp_path / "small/dark/v0.mp4").exists()


@pytest.mark.slow
def test_two_thousand_files_of_which_a_hundred_are_damaged(tmp_path):
    """Finishes, lists exactly those, and trains on exactly the others."""
    (tmp_path / "damaged").mkdir()
    damaged = [path for path in make_damaged(tmp_path / "damaged").values() if path.is_file()]
    bad = [file.sample.path for file in check_samples(_samples(damaged), num_workers=2).damaged][:100]
    assert len(bad) == 100
    videos = tmp_path / "videos"
    good = []
    for i in range(20):
        good.append(
            write_video(tmp_path / f"good{i}.mp4", numbered_frames(20 + i, 32, 48), options={"g": "12", "bf": "2"})
        )
    for i in range(1900):
        target = videos / f"class{i % 2}" / f"good{i}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good[i % 20], target)
    for i, path in enumerate(bad):
        shutil.copy(path, videos / f"class{i % 2}" / f"bad{i}.mp4")
    settings = {**TINY, "data": {"path": str(videos), "num_workers": 2, "val_fraction": 0.05}}
    settings["training"] = {"steps": 190, "batch_size": 10, "eval_every": 0, "save_every": 1000}  # one epoch
    result = train(replace(RunConfig(), **settings), tmp_path / "run")
    listed = {**result.damaged, **result.evaluation.damaged}
    assert sorted(path.rsplit("/", 1)[1] for path in listed) == sorted(f"bad{i}.mp4" for i in range(100))
    with open(tmp_path / "run/damaged.csv") as file:
        assert {row["path"] for row in csv.DictReader(file)} == set(result.damaged)


def _samples(paths):
    from evl.types import Sample

    return [Sample(str(path), "x") for path in paths]
