"""Whole runs on collections as they are: damaged and missing files, folders of frames, lists, splits."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evl.collections.check import check_samples
from evl.config import RunConfig, replace
from evl.data.manifests.manifest import read_manifest
from evl.data.splits import find_splits
from evl.errors import DataError, EVLError, RunError
from evl.training import train
from tests.conftest import TINY
from tests.damage import make_damaged
from tests.helpers import numbered_frames, run_command, write_video
from tests.training.helpers import with_broken_in_training


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


def test_damaged_videos_are_listed_or_stop_the_run(tiny_config, tmp_path, videos):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/9 broken.mp4").write_bytes(b"broken" * 1000)
    config = replace(tiny_config, data={"path": str(tmp_path / "videos"), "max_damaged_share": 0.2})
    config = with_broken_in_training(config)
    result = train(config, tmp_path / "run")
    assert [path.endswith("9 broken.mp4") for path in result.damaged] == [True]
    assert "9 broken.mp4,cannot be decoded" in (tmp_path / "run/damaged.csv").read_text()
    with pytest.raises(RunError, match=r"1 of 9 training videos are damaged \(11.1 %, allowed 5 %\)"):
        train(replace(config, data={"max_damaged_share": 0.05}), tmp_path / "strict")


def test_missing_videos_are_left_out_and_listed(tiny_config, tmp_path, videos, caplog):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    names = [f"{label}/{i} video.mp4" for label in ("bright", "dark") for i in range(6)]
    names += ["dark/gone 1.mp4", "bright/gone, 2.mp4", "nowhere/gone 3.mp4"]
    rows = [f'"{name}",{"dark" if "dark" in name else "bright"}\n' for name in names]
    (folder / "list.csv").write_text("path,label\n" + "".join(rows))
    config = replace(tiny_config, data={"path": str(folder / "list.csv"), "max_damaged_share": 0.0})
    with caplog.at_level("WARNING", "evl"):
        result = train(config, tmp_path / "run")
    assert result.damaged == {}
    assert {Path(sample.path).name for sample in result.missing} == {"gone 1.mp4", "gone, 2.mp4", "gone 3.mp4"}
    assert sum("3 listed videos are missing" in message for message in caplog.messages) == 1
    with open(tmp_path / "run/missing.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "split"],
            [str(folder / "dark/gone 1.mp4"), "dark", "all"],
            [str(folder / "bright/gone, 2.mp4"), "bright", "all"],
            [str(folder / "nowhere/gone 3.mp4"), "bright", "all"],
        ]
    listed = "".join((tmp_path / f"run/{split}.csv").read_text() for split in ("train", "val"))
    assert "gone" not in listed
    # the stored list holds: what turns up later is not trained on, what goes later counts as damage
    train_samples = read_manifest(tmp_path / "run/train.csv").samples
    shutil.copy(folder / "dark/0 video.mp4", folder / "dark/gone 1.mp4")
    os.unlink(train_samples[0].path)
    with pytest.raises(RunError, match=r"1 of 8 training videos are gone.*`resume=True` and `data.root=FOLDER`"):
        train(None, tmp_path / "run", resume=True)
    result = train(None, tmp_path / "run", resume=True, settings=("data.max_damaged_share=0.5",))
    assert result.damaged == {train_samples[0].path: "no such file"}


def test_all_missing_is_an_error_that_names_the_root(tiny_config, tmp_path, videos):
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"gone{i}.mp4,{'ab'[i % 2]}\n" for i in range(10)))
    config = replace(tiny_config, data={"path": str(tmp_path / "list.csv")})
    with pytest.raises(DataError, match=r"all 10 videos are missing, such as .*gone0\.mp4.*`root`"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "val.csv").write_text("path,label\ngone.mp4,dark\n")
    with pytest.raises(DataError, match=r"val\.csv: all 1 videos are missing"):
        find_splits(replace(tiny_config, data={"val_path": str(tmp_path / "val.csv")}))


def test_the_split_of_a_layout_is_trained_on(tiny_config, tmp_path, videos):
    (tmp_path / "classInd.txt").write_text("1 dark\n2 bright\n")
    (tmp_path / "trainlist01.txt").write_text("dark/gone.avi 1\n")
    (tmp_path / "testlist02.txt").write_text("dark/5 video.avi\n")
    train_list = [f"{label}/{i} video.avi {number}\n" for number, label in ((1, "dark"), (2, "bright")) for i in (0, 1)]
    (tmp_path / "trainlist02.txt").write_text("".join(train_list) + "dark/gone.avi 1\n")
    data = {"path": str(tmp_path), "root": str(videos), "layout": "ucf101", "split_number": 2}
    found = find_splits(replace(tiny_config, data=data))
    training, validation = found.splits["train"], found.splits["val"]
    assert found.class_names == ("dark", "bright")
    assert (len(training), len(validation)) == (2, 2)
    assert sorted(Path(s.path).name for s in training + validation) == ["0 video.mp4"] * 2 + ["1 video.mp4"] * 2
    assert [sample.path for sample in found.missing["train"]] == [str(videos / "dark/gone.avi")]
    with pytest.raises(DataError, match="all 1 videos are missing"):
        find_splits(replace(tiny_config, data={**data, "split_number": 1}))


def test_val_path_is_not_a_test_split(tiny_config, tmp_path, videos):
    for split in ("test", "train"):
        shutil.copytree(videos, tmp_path / split / split)
        with pytest.raises(EVLError, match=f"no validation split, only {split}"):
            find_splits(replace(tiny_config, data={"val_path": str(tmp_path / split)}))


def test_progress_says_what_training_waits_for():
    from evl.data.loader import default_num_workers
    from evl.streams.live import decoding_advice
    from evl.training.loop import Speed

    most = default_num_workers()
    assert Speed(10.0, 0.1).describe("try it") == "10.0 clips/s  waiting for data 10 %"
    assert Speed(10.0, 0.5).describe("try it").endswith("waiting for data 50 % (try it)")
    assert decoding_advice(most) == "try evl prepare"
    assert decoding_advice(0) == "try data.num_workers above 0, evl prepare"
