"""Every way to name videos and labels, and every way to get it wrong."""

import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from evl.data.draw import split_samples
from evl.data.manifests.manifest import read_class_names, read_manifest, write_manifest
from evl.errors import DataError, SaveError
from evl.types import Sample


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folder_per_class(tmp_path):
    touch(
        tmp_path / "walk/b.mp4", tmp_path / "walk/sub/a.webm", tmp_path / "run fast/c.AVI", tmp_path / "run fast/x.txt"
    )
    touch(tmp_path / ".cache/d.mp4", tmp_path / "notes.md")
    manifest = read_manifest(tmp_path)
    assert manifest.class_names == ("run fast", "walk")
    assert [(Path(s.path).name, s.label) for s in manifest.splits["all"]] == [
        ("c.AVI", "run fast"), ("b.mp4", "walk"), ("a.webm", "walk"),
    ]  # fmt: skip
    assert {Path(name).name for name in manifest.ignored} == {"x.txt", "notes.md"}


def test_folder_with_splits(tmp_path):
    touch(tmp_path / "train/a/1.mp4", tmp_path / "train/b/2.mp4", tmp_path / "valid/a/3.mp4", tmp_path / "test/b/4.mp4")
    manifest = read_manifest(tmp_path)
    assert {split: len(samples) for split, samples in manifest.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert manifest.class_names == ("a", "b")


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path / "train/1.mp4", tmp_path / "plane/2.mp4")
    assert read_manifest(tmp_path).class_names == ("plane", "train")


def test_csv_with_times_and_split(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(
        "\ufeffpath,label,start_seconds,end_seconds,split,more\n"
        'a b.mp4,"x, y",,2.5,train,1\nsub/c.mp4,z,1,,validation,2\n'
    )
    manifest = read_manifest(file)
    assert manifest.splits["train"] == (Sample(str(tmp_path / "a b.mp4"), "x, y", None, 2.5),)
    assert manifest.splits["val"] == (Sample(str(tmp_path / "sub/c.mp4"), "z", 1.0, None),)
    assert read_manifest(file, root="/videos").splits["train"][0].path == "/videos/a b.mp4"


def test_parquet(tmp_path):
    table = pyarrow.table({"path": ["a.mp4", "b.mp4"], "label": [3, 10], "end_seconds": [None, 4.0]})
    parquet.write_table(table, tmp_path / "list.parquet")
    manifest = read_manifest(tmp_path / "list.parquet")
    assert manifest.class_names == ("3", "10")  # as numbers, not as text
    assert manifest.samples[1] == Sample(str(tmp_path / "b.mp4"), "10", None, 4.0)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read as a Parquet"):
        read_manifest(tmp_path / "bad.parquet")


def test_the_release_list(tmp_path):
    file = tmp_path / "train.txt"
    file.write_text("abc/my video 1.mp4 0\nb.mp4\t1\n\n")
    manifest = read_manifest(file, class_names=["run", "walk"])
    assert [(s.path, s.label) for s in manifest.samples] == [
        (str(tmp_path / "abc/my video 1.mp4"), "run"), (str(tmp_path / "b.mp4"), "walk"),
    ]  # fmt: skip
    assert read_manifest(file).class_names == ("0", "1")
    with pytest.raises(DataError, match="label 1, but there are only 1 class names"):
        read_manifest(file, class_names=["run"])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "file,label\nx.mp4,1\n", "no column 'path'.*it has file, label"),
        ("a.csv", "x.mp4,run\ny.mp4,walk\n", "no column 'path' or 'label'"),
        ("a.csv", "", "no column"),
        ("a.csv", "path,label\n", "no videos found"),
        ("a.csv", "path,label\nx.mp4,\n", "row 2: label is empty"),
        ("a.csv", "path,label,start_seconds\nx.mp4,a,soon\n", "start_seconds is 'soon'"),
        ("a.csv", "path,label,start_seconds,end_seconds\nx.mp4,a,3,2\n", "is not after the start"),
        ("a.csv", "path,label,split\nx.mp4,a,extra\n", "split 'extra'"),
        ("a.csv", "path,label,split\nx.mp4,a,train\ny.mp4,a,\n", "some rows have a split"),
        ("a.txt", "only-a-path.mp4\n", "line 1: 'only-a-path.mp4' is not 'path label'"),
        ("a.csv", b"path,label\n\xff\xfe\x00,1\n", "not text in UTF-8"),
        ("a.mp4", b"", "a video; expected a folder of videos"),
    ],
)
def test_wrong_lists_are_told(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path / name)


def test_wrong_folders_are_told(tmp_path):
    with pytest.raises(DataError, match="no such manifest or folder"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(DataError, match="no videos found"):
        read_manifest(tmp_path)
    touch(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"expected .*/CLASS/a\.mp4"):
        read_manifest(tmp_path)


def test_unknown_class(tmp_path):
    touch(tmp_path / "jump/a.mp4", tmp_path / "walk/b.mp4")
    with pytest.raises(DataError, match="unknown class 'jump'; the known classes are 'run', 'walk'"):
        read_manifest(tmp_path, class_names=["run", "walk"])


def test_split_is_seeded_stratified_and_by_file():
    samples = [Sample(f"{label}{i}.mp4", label, part) for label in "abc" for i in range(10) for part in (0.0, 5.0)]
    samples.append(Sample("alone.mp4", "d"))
    train, val = split_samples(samples, val_fraction=0.2, seed=1)
    assert (train, val) == split_samples(samples, val_fraction=0.2, seed=1)
    assert val != split_samples(samples, val_fraction=0.2, seed=2)[1]
    assert sorted(train + val, key=str) == sorted(samples, key=str)
    assert not {s.path for s in train} & {s.path for s in val}
    assert [sum(s.label == label for s in val) for label in "abcd"] == [4, 4, 4, 0]


def test_written_manifests_come_back(tmp_path):
    samples = [Sample(str(tmp_path / "sub/a, b.mp4"), "x"), Sample("/elsewhere/c.mp4", "y", 1.5, None)]
    write_manifest(tmp_path / "out.csv", samples)
    assert list(read_manifest(tmp_path / "out.csv").samples) == samples
    assert "/tmp" not in (tmp_path / "out.csv").read_text().splitlines()[1]


def test_failed_writing_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "out.csv"
    write_manifest(file, [Sample("/a.mp4", "x")])
    before = file.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match=r"could not be written \(No space left"):
        write_manifest(file, [Sample("/b.mp4", "y")])
    assert file.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_numbers_never_stand_for_other_numbers(tmp_path):
    """A model of classes 10, 20, 30 does not know a class 1, although it has a second class."""
    touch(tmp_path / "1/a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    for path in (tmp_path, tmp_path / "list.txt"):
        with pytest.raises(DataError, match="unknown class '1'"):
            read_manifest(path, class_names=["10", "20", "30"])
    with pytest.raises(DataError, match="unknown class '1'"):  # a folder's name is a name
        read_manifest(tmp_path, class_names=["run", "walk"])


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "a/1.mp4", tmp_path / "b/2.mp4")
    (tmp_path / "a/self").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert len(read_manifest(tmp_path).samples) == 2


@pytest.mark.parametrize("name", ["   ", "a\nz", "b\u2028c"])
def test_names_that_cannot_be_written_down(tmp_path, name):
    touch(tmp_path / name / "1.mp4", tmp_path / "b/2.mp4")
    with pytest.raises(DataError, match="is empty or contains a line break"):
        read_manifest(tmp_path)


def test_more_odd_names(tmp_path):
    touch(tmp_path / "²/1.mp4", tmp_path / "3/2.mp4", tmp_path / "01/1.mp4", tmp_path / "1/1.mp4")
    assert read_manifest(tmp_path).class_names == ("01", "1", "3", "²")
    (tmp_path / os.fsdecode(b"3/\xff.mp4")).write_bytes(b"")
    manifest = read_manifest(tmp_path)
    assert len(manifest.samples) == 4
    assert manifest.ignored == (str(tmp_path / "3/\\xff.mp4"),)
    assert manifest.notices[0].startswith(rf"left out, because the name is not UTF-8: {tmp_path}/3/\xff.mp4;")
    (tmp_path / "zero.csv").write_text("path,label\na\0b.mp4,x\n")
    with pytest.raises(DataError):
        read_manifest(tmp_path / "zero.csv")
    (tmp_path / "dots.csv").write_text("path,label\n3/../3/2.mp4,x\n")
    assert read_manifest(tmp_path / "dots.csv").samples[0].path == str(tmp_path / "3/2.mp4")


def test_a_class_name_ends_only_where_its_line_ends(tmp_path):
    names = ("a\u2028b", "a\x0bb", "a\x1cb", "a\x85b", "$_$")
    (tmp_path / "names.txt").write_text("".join(f"{name}\r\n" for name in names), encoding="utf-8", newline="")
    assert read_class_names(tmp_path / "names.txt") == names
