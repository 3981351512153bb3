"""Folders of frames in listings, and what is missing: seen without asking for each file."""

import os
from pathlib import Path

import pytest

from evl.data.manifests import listing
from evl.data.manifests.listing import missing_samples
from evl.data.manifests.manifest import list_videos, read_manifest
from evl.errors import DataError
from evl.types import Sample
from tests.data.helpers import found, make, write


def test_folders_of_frames_are_videos_of_a_class(tmp_path):
    make(tmp_path, "run/1/1.jpg", "run/1/2.jpg", "run/deep/er/a.PNG", "run/both/1.jpg", "run/both/b.mp4", "run/c.mp4")
    make(tmp_path, "walk/x.jpg", "walk/2/1.jpeg", "walk/2/notes.txt", "y.png")
    manifest = read_manifest(tmp_path)
    assert sorted(found(manifest, tmp_path)["all"]) == [
        ("run/1", "run"), ("run/both/b.mp4", "run"), ("run/c.mp4", "run"), ("run/deep/er", "run"), ("walk/2", "walk"),
    ]  # fmt: skip
    assert sorted(os.path.relpath(name, tmp_path) for name in manifest.ignored) == [
        "run/both/1.jpg",
        "walk/x.jpg",
        "y.png",
    ]
    (tmp_path / "s").mkdir()
    os.rename(tmp_path / "run", tmp_path / "s/train")
    assert [s.label for s in read_manifest(tmp_path / "s").samples] == ["train"] * 4  # c.mp4 lies in it: a class
    os.unlink(tmp_path / "s/train/c.mp4")
    assert found(read_manifest(tmp_path / "s"), tmp_path / "s") == {
        "train": [("train/both/b.mp4", "both"), ("train/deep/er", "deep")]
    }


def test_a_folder_of_pictures_is_no_data_set(tmp_path):
    make(tmp_path, "cats/1.jpg", "dogs/2.jpg")
    with pytest.raises(DataError, match=r"CLASS/VIDEO/00001\.jpg"):
        read_manifest(tmp_path)


def test_all_videos_below_a_folder(tmp_path):
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/c.mp4", "b/d/1.png", "e.avi", ".hidden/f.mp4")
    videos = [video.relative_to(tmp_path).as_posix() for video in list_videos(tmp_path)]
    assert videos == ["e.avi", "a", "b/c.mp4", "b/d"]
    assert list_videos(tmp_path / "a") == [tmp_path / "a"]


def test_missing_is_seen_in_listings_without_asking_for_each_file(tmp_path, monkeypatch):
    make(tmp_path, *(f"videos/{i}.mp4" for i in range(50)), "videos/frames/1.jpg")
    (tmp_path / "videos/link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "videos/good.mp4").symlink_to(tmp_path / "videos/1.mp4")
    wanted = [
        *(f"videos/{i}.mp4" for i in range(60)),
        "videos/frames",
        "videos/link.mp4",
        "videos/good.mp4",
        "no/1.mp4",
    ]
    samples = [Sample(str(tmp_path / name), "x") for name in wanted]
    asked, exists = [], os.path.exists
    monkeypatch.setattr(listing.os.path, "exists", lambda path: asked.append(path) or exists(path))
    gone = [os.path.relpath(sample.path, tmp_path) for sample in missing_samples(samples)]
    assert gone == [*(f"videos/{i}.mp4" for i in range(50, 60)), "videos/link.mp4", "no/1.mp4"]
    assert [Path(path).name for path in sorted(asked)] == ["good.mp4", "link.mp4"]  # links only
    write(tmp_path, "list.csv", "path,label\n" + "".join(f"{name},x\n" for name in wanted))
    assert len(read_manifest(tmp_path / "list.csv").missing) == 12


def test_every_folder_is_listed_once(tmp_path, monkeypatch):
    write(tmp_path, "something-something-v1-train.csv", "".join(f"{i};x\n" for i in range(100)))
    make(tmp_path, *(f"frames/{i}/1.jpg" for i in range(100)))
    listed, scandir = [], os.scandir
    monkeypatch.setattr(listing.os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    manifest = read_manifest(tmp_path)
    assert manifest.missing == ()
    assert len(manifest.samples) == 100
    assert len(listed) <= 4  # for finding the lists, then for the videos: never the folders of frames
