"""What is odd about a collection is told once, with a file and what to do."""

import shutil

import pytest

from evl.collections.check import check_samples
from evl.config import replace
from evl.data.notices import several_labels, split_notices
from evl.data.splits import find_splits
from evl.types import Sample
from tests.helpers import run_command


def test_a_file_under_three_labels():
    samples = [Sample("a.mp4", y) for y in ("open", "close", "push")] + [Sample("b.mp4", "open")]
    (notice,) = several_labels(samples)
    assert notice.startswith(
        "1 video is listed under several labels for the same time: a.mp4 ('open'), a.mp4 ('close'), a.mp4 ('push')."
    )
    assert "keep one of them, or give each label times that do not overlap" in notice


@pytest.mark.parametrize(
    ("rows", "is_odd"),
    [
        ([("x", 0.0, 5.0), ("y", 5.0, 9.0)], False),  # one after the other
        ([("x", 0.0, 5.0), ("y", 4.9, 9.0)], True),
        ([("x", None, 5.0), ("y", 5.0, None)], False),
        ([("x", None, None), ("y", 5.0, 6.0)], True),  # a part of what is labelled as a whole
        ([("x", 0.0, 9.0), ("x", 2.0, 3.0), ("y", 5.0, 6.0)], True),  # the shorter one does not hide the longer one
        ([("x", 0.0, 9.0), ("x", 0.0, 9.0)], False),  # twice the same, but no contradiction
        ([("y", 8.0, 9.0), ("x", 0.0, 8.0), ("z", 9.0, None)], False),  # in any order
        ([(None, None, None), (None, None, None)], False),
    ],
)
def test_times_that_overlap(rows, is_odd):
    assert bool(several_labels([Sample("a.mp4", *row) for row in rows])) == is_odd


def test_many_are_one_line():
    samples = [Sample(f"{i}.mp4", y) for i in range(50) for y in "uvwxyz"]
    (notice,) = several_labels(samples)
    assert notice.startswith("50 videos are listed under several labels for the same time: such as 0.mp4 ('u'), ")
    assert notice.count("0.mp4") == 4


def test_splits_that_are_told():
    train = [Sample("a.mp4", "x", 0.0, 1.0), Sample("b.mp4", "y"), Sample("b.mp4", "y")]
    val = [Sample("a.mp4", "x", 1.0, 2.0)]
    both, alone = split_notices(train, val)
    assert both.startswith(
        "1 file is in both training and validation, such as a.mp4, so the validation score is not of"
    )
    assert alone == "1 class has no validation videos, and so no score: 'y' (2 training videos)"
    (share,) = split_notices(
        [Sample("a.mp4", "x", float(i)) for i in range(20)], [Sample("b.mp4", "x", float(i)) for i in range(20)], 0.2
    )
    assert share.startswith("validation has 50 % of the 40 videos, not 20 %: these are 2 files or groups")
    assert split_notices([Sample("a.mp4", "x")] * 8, [Sample("b.mp4", "x")] * 2, 0.2) == ()


def test_a_run_and_check_say_it(capsys, tmp_path, videos, tiny_config, caplog):
    shutil.copytree(videos, tmp_path / "videos")
    rows = [f"videos/{y}/{i} video.mp4,{y}" for y in ("bright", "dark") for i in range(6)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["path,label", *rows, "videos/dark/2 video.mp4,bright"]) + "\n")
    sentence = "1 video is listed under several labels for the same time"
    find_splits(replace(tiny_config, data={"path": str(path)}))
    assert sum(sentence in message for message in caplog.messages) == 1
    code, out, _ = run_command(capsys, "check", path, "--workers", 0)
    assert code == 0
    assert out.count(sentence) == 1
    # the same video under another name and label
    shutil.copy(tmp_path / "videos/dark/2 video.mp4", tmp_path / "videos/bright/copy.mp4")
    samples = [Sample(str(file), file.parent.name) for file in sorted((tmp_path / "videos").rglob("*.mp4"))]
    (notice,) = check_samples(samples).notices
    assert sentence in notice
    assert "copy.mp4 ('bright')" in notice
    assert "2 video.mp4 ('dark')" in notice
    # or on both sides of a split
    splits = ["val" if "copy" in sample.path or "0 " in sample.path else "train" for sample in samples]
    labeled = [replace_label(sample, "dark") if "copy" in sample.path else sample for sample in samples]
    assert "1 file is in both training and validation" in check_samples(labeled, splits=splits).notices[0]


def replace_label(sample, label):
    return Sample(sample.path, label)


def test_check_says_what_training_would_refuse(capsys, tmp_path, videos):
    shutil.copy(videos / "dark/0 video.mp4", tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text("path,label,start_seconds,end_seconds\na.mp4,x,0,0.2\na.mp4,y,0.2,0.4\n")
    code, out, _ = run_command(capsys, "check", tmp_path / "list.csv", "--workers", 0)
    assert code == 0
    assert "evl train would refuse this: no validation videos can be drawn: all 2 rows are of one file" in out
    (tmp_path / "list.csv").write_text("path,label,group,split\na.mp4,x,1,train\nb.mp4,y,1,val\n")
    shutil.copy(videos / "dark/1 video.mp4", tmp_path / "b.mp4")
    code, out, _ = run_command(capsys, "check", tmp_path / "list.csv", "--workers", 0, "--json")
    assert "evl train would refuse this: group '1' is in two splits" in out
