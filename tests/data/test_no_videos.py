"""What lies beside videos and is none: folders of systems, thumbnails, unknown endings, names that cannot be read."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evl.data.manifests.manifest import find_videos, list_videos, read_manifest
from evl.data.notices import manifest_notices, mixed_kinds, twin_classes
from evl.errors import DataError, UnlabeledError
from evl.types import Sample
from evl.video.decode.reader import read_clip
from tests.data.helpers import found, make
from tests.helpers import Wanted, run_command, write_video
from tests.makers import video

ENDINGS = "asf f4v 3g2 mxf mj2 dv"


@pytest.fixture
def run(capsys):
    return partial(run_command, capsys)


@pytest.mark.parametrize(
    "beside",
    [
        "@eaDir/0.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg", "#recycle/old/1.mp4", "#recycle/old.mp4", "$RECYCLE.BIN/x/1.mp4",
        "lost+found/9/1.mp4", "__MACOSX/run/1.mp4", ".thumbnails/x/1.jpg", ".Trash-1/files/1.mp4", "Thumbnails/0.jpg",
        "@Recycle/1.mp4", "System Volume Information/a/1.mp4", "thumbs/0.jpg", "posters/0.png", "@eaDir/x/y/z/1.mp4",
    ],
)  # fmt: skip
def test_folders_of_systems_are_left_out_anywhere(tmp_path, beside):
    make(tmp_path, "run/0.mp4", "walk/1.mp4", "walk/2/1.jpg", f"run/{beside}", beside, f"walk/deep/{beside}")
    manifest = read_manifest(tmp_path)
    assert found(manifest, tmp_path) == {"all": [("run/0.mp4", "run"), ("walk/1.mp4", "walk"), ("walk/2", "walk")]}
    assert len(list_videos(tmp_path)) == 3
    if not beside.startswith("."):  # hidden files are no one's
        assert len(manifest.ignored) == 3
        assert len(find_videos(tmp_path)[1]) == 3


def test_the_folder_that_is_asked_for_is_entered(tmp_path):
    make(tmp_path, "@eaDir/run/1.mp4", "thumbs/1.jpg", "thumbs/2.jpg", "gestures/thumbs/v/1.jpg", "gestures/up/1.mp4")
    assert len(read_manifest(tmp_path / "@eaDir").samples) == 1
    assert list_videos(tmp_path / "thumbs") == [tmp_path / "thumbs"]
    assert read_manifest(tmp_path / "gestures").class_names == ("thumbs", "up")


def test_names_that_are_not_utf8_are_counted_and_listed(tmp_path, caplog):
    make(tmp_path, "run/1.mp4", "walk/2.mp4")
    for name in (b"run/caf\xe9.mp4", b"w\xe4lk/1.mp4", b"\xff.txt"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"")
    manifest = read_manifest(tmp_path)
    assert len(manifest.samples) == 2
    assert sorted(os.path.relpath(name, tmp_path) for name in manifest.ignored) == [
        r"\xff.txt", r"run/caf\xe9.mp4", r"w\xe4lk",
    ]  # fmt: skip
    (notice,) = manifest.notices
    assert notice.startswith(rf"left out, because the name is not UTF-8: {tmp_path}/\xff.txt and 2 more;")
    caplog.clear()
    assert len(list_videos(tmp_path)) == 2
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [notice]
    assert len(find_videos(tmp_path)[1]) == 3


@pytest.mark.parametrize("ending", ENDINGS.split())
def test_more_endings(tmp_path, ending):
    make(tmp_path, f"run/a.{ending}", f"run/B.{ending.upper()}")
    assert len(read_manifest(tmp_path).samples) == 2


def test_files_of_these_endings_are_read(tmp_path):
    video(tmp_path / "a.mp4", count=4)
    for ending in ("f4v", "mj2", "3g2", "qt", "3gpp"):  # of one family
        shutil.copy(tmp_path / "a.mp4", tmp_path / f"a.{ending}")
    mpeg2 = dict(codec="mpeg2video", options={"g": "4", "bf": "0", "b": "2000000"})
    for ending, form in {"asf": dict(codec="mpeg4"), "mxf": mpeg2, "vob": mpeg2, "nut": {}}.items():
        video(tmp_path / f"a.{ending}", count=4, **form)
    write_video(tmp_path / "a.dv", np.zeros((4, 576, 720, 3), np.uint8), codec="dvvideo")
    paths = list_videos(tmp_path)
    assert len(paths) == 11
    for path in paths:
        frames, index, _ = read_clip(str(path), Wanted(lambda count: range(count)), verify=True)
        assert len(frames) == index.num_frames == 4, path


def test_unknown_endings_in_a_flat_folder_are_counted(tmp_path, run):
    video(tmp_path / "a.mp4", count=8)
    make(tmp_path, "b.braw", "c.mp4.part", "notes.txt")
    with pytest.raises(UnlabeledError, match="is not in a class folder"):
        read_manifest(tmp_path)
    code, out, _ = run("check", tmp_path, "--json", "--workers", 0)
    document = json.loads(out)
    assert code == 0
    assert [Path(name).name for name in document["ignored"]] == ["b.braw", "c.mp4.part", "notes.txt"]
    assert document["num_good"] == 1
    assert document["notices"][0].startswith("no labels, so not for training: ")


def test_check_does_not_approve_what_training_refuses(tmp_path, run):
    """It looks at unlabelled folders, but not at those whose classes are unclear."""
    for name in ("train/a/1.mp4", "val/a/1.mp4", "extra/b/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        video(tmp_path / name, count=8)
    code, _, err = run("check", tmp_path, "--workers", 0)
    assert code != 0
    assert "'train' and 'val' look like splits, but 'extra' does not" in " ".join(err.split())
    assert run("check", tmp_path, "--layout", "classes", "--workers", 0)[0] == 0


def test_classes_that_differ_in_little_are_pointed_out(tmp_path):
    make(tmp_path, "Run/1.mp4", "run/2.mp4", "long jump/1.mp4", "long_jump/1.mp4", "Long-Jump/2.mp4", "walk/1.mp4")
    notices = manifest_notices(read_manifest(tmp_path))
    assert [notice.partition(" differ")[0] for notice in notices] == [
        "the classes 'Long-Jump' and 'long jump' and 'long_jump'", "the classes 'Run' and 'run'",
    ]  # fmt: skip
    assert twin_classes(["a b", "ab c", "c++", "c", "1", "-", "_"]) == ()
    assert len(twin_classes(["stra\u00dfe", "STRASSE", "Ａ", "a"])) == 2


def test_a_class_of_files_and_folders_of_frames_is_pointed_out(tmp_path):
    make(tmp_path, "run/1.mp4", "run/2.mp4", "run/shots/1.jpg", "walk/v/1.jpg", "walk/w/1.jpg", "jump/1.mp4")
    (notice,) = manifest_notices(read_manifest(tmp_path))
    assert notice.startswith(
        f"the class 'run' has 2 video files and 1 folder of frames, such as {tmp_path}/run/shots. "
    )
    assert mixed_kinds([Sample("a.mp4", "x"), Sample("no_ending", "x")]) == ()


def test_metadata_with_a_comma_is_refused(tmp_path):
    make(tmp_path, "open.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,label\ndoor, open.mp4,left\n")
    with pytest.raises(DataError, match=r"metadata\.csv, row 2: 3 cells"):
        read_manifest(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label,more\ndoor, open.mp4,left\n")
    with pytest.raises(DataError, match=r"video 1: the label 'open\.mp4' is a video's name"):
        read_manifest(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name;label\nopen.mp4;fene\u0302tre \n", encoding="utf-8-sig")
    assert read_manifest(tmp_path).class_names == ("fenêtre",)
