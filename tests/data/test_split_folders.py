"""Folders that are splits, classes that are called as splits are, and folders of which neither can be told."""

import re

import pytest

from evl.data.manifests.manifest import read_manifest
from evl.data.manifests.split_names import read_split, split_meanings
from evl.errors import DataError
from tests.data.helpers import make, write


def splits(folder, **options):
    """split → classes in it."""
    manifest = read_manifest(folder, **options)
    return {split: sorted({sample.label for sample in group}) for split, group in manifest.splits.items()}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val"), {"train", "val"}),
        (("train", "dev"), {"train", "val"}),
        (("Train", "TEST"), {"train", "test"}),
        (("videos_train", "videos_val"), {"train", "val"}),
        (("train_videos", "test_videos"), {"train", "test"}),
        (("train-set", "val-set"), {"train", "val"}),
        (("01_train", "02_val", "03_test"), {"train", "val", "test"}),
        (("train2017", "val2017"), {"train", "val"}),
        (("split_train", "split_test"), {"train", "test"}),
        (("training set", "validation set"), {"train", "val"}),
        (("TrainSet", "TestSet"), {"train", "test"}),
        (("trainset", "testset", "valset"), {"train", "val", "test"}),
        (("ucf_train", "ucf_val"), {"train", "val"}),
        (("train_ucf101_rgb", "test_ucf101_rgb"), {"train", "test"}),
        (("trainval", "test"), {"train", "test"}),
        (("train_val", "test"), {"train", "test"}),
        (("train", "eval"), {"train", "val"}),
        (("train", "evaluation", "test"), {"train", "val", "test"}),
        (("train", "hold-out"), {"train", "test"}),
        (("train_1", "train_2", "val"), {"train", "val"}),
        (("train",), {"train"}),
    ],
)
def test_usual_names_of_splits(tmp_path, folders, expected):
    make(tmp_path, *(f"{folder}/{label}/1.mp4" for folder in folders for label in "ab"))
    assert splits(tmp_path) == {split: ["a", "b"] for split in expected}


def test_a_folder_without_videos_counts_as_nothing(tmp_path):
    make(tmp_path, *(f"{split}/{label}/1.mp4" for split in ("train", "val") for label in "ab"))
    write(tmp_path, "annotations/labels.json", {"a": 0})
    make(tmp_path, "docs/x/cover.jpg.txt", "thumbnails/a/1.jpg", "@eaDir/train/1.jpg", "scripts/run.py", "more/1.jpg")
    (tmp_path / "empty").mkdir()
    assert splits(tmp_path) == {"train": ["a", "b"], "val": ["a", "b"]}
    ignored = {name.removeprefix(f"{tmp_path}/") for name in read_manifest(tmp_path).ignored}
    assert ignored == {
        "annotations/labels.json", "docs/x/cover.jpg.txt", "thumbnails", "@eaDir", "scripts/run.py", "more/1.jpg",
    }  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        ("train/1.mp4", "plane/2.mp4", "ship/3.mp4"),
        ("test/1.mp4", "play/2.mp4"),
        ("test/v/1.jpg", "play/v/1.jpg", "rest/w/1.jpg"),  # folders of frames
        ("testing water/1.mp4", "pouring water/2.mp4"),
        ("freight train/1.mp4", "toy train/2.mp4"),
        ("train station/1.mp4", "bus station/2.mp4"),
        ("training dog/x/1.mp4", "walking dog/x/1.mp4"),
        ("strain/1.mp4", "contest/2.mp4", "oval/3.mp4"),
        ("part1/1.mp4", "part2/1.mp4"),
    ],
)
def test_classes_that_are_called_like_splits(tmp_path, files):
    make(tmp_path, *files)
    assert splits(tmp_path) == {"all": sorted({file.split("/")[0] for file in files})}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            ("train/a/1.mp4", "val/a/1.mp4", "unlabeled/1.mp4"),
            "'train' and 'val' look like splits, but 'unlabeled'",
        ),
        (("train/a/1.mp4", "val/a/1.mp4", "extra/a/1.mp4"), "'train' and 'val' look like splits, but 'extra' does not"),
        (("train/1.mp4", "unlabeled/1.mp4"), "'train' looks like a split, but 'unlabeled' does not"),
        (("train/a/1.mp4", "plane/b/1.mp4", "car/c/1.mp4"), "'train' looks like a split, but 'car' and 'plane' do not"),
        (("train/1.mp4", "val/1.mp4"), "look like splits, but there are videos directly in 'train' and 'val'"),
        (("train/a/1.mp4", "train/2.mp4", "val/a/1.mp4"), "there are videos directly in 'train', in no class folder"),
        (("train/1.mp4", "test/1.mp4", "plane/1.mp4"), "'test' and 'train' look like splits, but 'plane' does not"),
        (("train/a/1.mp4", "dev/a/1.mp4", "eval/a/1.mp4"), "'dev' and 'eval' may both mean the split 'val'"),
        (("trainval/a/1.mp4", "val/a/1.mp4"), "'trainval' and 'val' may both mean the split 'train'"),
        (("trainval/a/1.mp4", "train/a/1.mp4"), "'train' and 'trainval' may both mean the split 'train'"),
        (("freight train/1.mp4", "crash test/1.mp4"), "contain the name of a split, but may also be classes"),
        (("fold1/a/1.mp4", "fold2/a/1.mp4"), "'fold1' and 'fold2' look like the parts of a cross-validation"),
    ],
)
def test_what_is_unclear_is_an_error_with_ways_out(tmp_path, files, sentence):
    make(tmp_path, *files)
    for options in ({}, {"layout": "folder"}):
        with pytest.raises(DataError, match=f"{sentence}.*layout=classes.*manifest") as caught:
            read_manifest(tmp_path, **options)
    # each way out is one
    assert splits(tmp_path, layout="classes") == {"all": sorted({file.split("/")[0] for file in files})}
    if "one by one" in str(caught.value):
        given = re.search(r"`data=(\S+)` and `data.val_path=(\S+)`\)", str(caught.value))
        assert [splits(folder) for folder in given.groups()] == [{"all": ["a"]}] * 2


def test_splits_below_other_folders(tmp_path):
    make(tmp_path, "videos/train/a/1.mp4", "videos/val/a/1.mp4")
    with pytest.raises(DataError, match=f"'train' and 'val' in 'videos' look like splits. Give.*{tmp_path}/videos"):
        read_manifest(tmp_path)
    make(tmp_path, "walk/train/1.mp4", "walk/test/2.mp4")
    with pytest.raises(DataError, match=r"classes must lie inside splits: train/videos/VIDEO.*layout=classes"):
        read_manifest(tmp_path)
    assert splits(tmp_path, layout="classes") == {"all": ["videos", "walk"]}


def test_the_models_class_names_tell(tmp_path):
    """A model that knows classes "test" and "train" is judged on a folder of these."""
    make(tmp_path, "train/x/1.mp4", "test/x/2.mp4")
    assert splits(tmp_path, class_names=["test", "train", "x y"]) == {"all": ["test", "train"]}
    assert splits(tmp_path, class_names=["test", "train", "x"]) == {"train": ["x"], "test": ["x"]}
    assert splits(tmp_path, class_names=["x"]) == {"train": ["x"], "test": ["x"]}


def test_readings():
    assert read_split("UCF101_train").rest == ("ucf",)
    for name in ("train/test", "trains", "retest", "validated", "devil", "Kinetics", ""):
        assert read_split(name) is None
    assert split_meanings({"train", "training", "dev"}) == {"train": "train", "training": "train", "dev": "val"}
