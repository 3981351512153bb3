"""Which layout is taken, and how wrong ones are told."""

from typing import get_args, get_type_hints

import pytest

from evl.config import DataConfig
from evl.data.layouts import NAMES
from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from tests.data.helpers import KINETICS, make, write


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("kinetics", "the layout 'kinetics' was not found here.*youtube_id"),
        ("ssv2", r"labels\.json with train\.json"),
        ("ssv1", r"something-something-v1-train\.csv"),
        ("hmdb51", r"CLASS_test_split1\.txt"),
        ("ucf101", r"classInd\.txt"),
        ("diving48", r"Diving48_vocab\.json"),
        ("videofolder", r"metadata\.csv"),
        ("ucf", "layout 'ucf' is unknown; did you mean ucf101"),
    ],
)
def test_a_layout_that_is_not_there_is_told(tmp_path, layout, sentence):
    make(tmp_path, "run/a.mp4")
    assert read_manifest(tmp_path).layout == "folder"
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path, layout=layout)
    with pytest.raises(DataError, match="split 2 was requested, but there are no hmdb51 or ucf101"):
        read_manifest(tmp_path, split_number=2)


def test_what_is_asked_for_comes_first(tmp_path):
    """A folder per class is read as one if asked for, whatever lists lie in it; a file is no folder."""
    write(tmp_path, "metadata.csv", "file_name,label\nrun/a.mp4,fast\n")
    make(tmp_path, "run/a.mp4")
    assert read_manifest(tmp_path).class_names == ("fast",)
    assert read_manifest(tmp_path, layout="folder").class_names == ("run",)
    write(tmp_path, "list.csv", "path,label\na.mp4,x\n")
    for layout in ("folder", "ucf101", "kinetics"):
        with pytest.raises(DataError, match="layout"):
            read_manifest(tmp_path / "list.csv", layout=layout)
    with pytest.raises(DataError, match="split 2 was requested, but videofolder has only one split list"):
        read_manifest(tmp_path, split_number=2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("k.csv", KINETICS + "a,x,ten,20,train\n", r"k\.csv, row 2: expected youtube_id,time_start"),
        ("k.csv", KINETICS + "a,x,10,20,extra\n", "row 2: split 'extra'"),
        ("something-something-v1-train.csv", "3\n", "the video 3 has no label"),
        ("something-something-v1-train.json", [{"label": "x"}], "a video has no id"),
        ("something-something-v1-train.json", 5, "expected a list of objects"),
        ("metadata.jsonl", '{"file_name": "a\\u0000.mp4", "label": "x"}', "file_name is"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": "\\ud800"}', "not UTF-8"),
        ("k.csv", KINETICS + "a,x\0,10,20,train\n", "zero byte|not a readable CSV"),
        ("run_test_split1.txt", "a.avi 3\n", r"'a\.avi 3', expected"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": "x"}\n{"file_name"\n', "line 2: cannot be read as JSON"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": "x"}\n{"label": "x"}\n', "video 2: file_name is None"),
        ("k.csv", KINETICS + ",x,10,20,test\n", "no videos found"),
    ],
)
def test_wrong_lists_are_told(tmp_path, name, content, sentence):
    write(tmp_path, name, content)
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path)


def test_class_names_given_are_used(tmp_path):
    write(tmp_path, "metadata.csv", "file_name,label\na.mp4,1\nb.mp4,0\n")
    make(tmp_path, "a.mp4")
    manifest = read_manifest(tmp_path, class_names=["run", "walk"])
    assert [s.label for s in manifest.samples] == ["walk", "run"]
    assert [s.label for s in manifest.missing] == ["run"]
    with pytest.raises(DataError, match="unknown class '0', '1'"):
        read_manifest(tmp_path, class_names=["2", "3"])


def test_the_config_knows_all_layouts():
    choices = get_args(get_type_hints(DataConfig)["layout"])
    assert choices == ("auto", "folder", "classes", *NAMES)
