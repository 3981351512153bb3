"""evl predict: what may be given, waiting, long videos, and exit codes."""

import io
import json
import sys

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import evl
from evl.inference import predictor
from tests.helpers import run_command, write_video


@pytest.fixture(scope="module")
def model(finished_run):
    return evl.load(finished_run)


@pytest.fixture
def predict(finished_run, capsys):
    def call(*arguments):
        code, out, err = run_command(capsys, "predict", finished_run, "--json", *arguments)
        return code, json.loads(out) if out.strip().startswith("{") else None, " ".join(err.split())

    return call


@pytest.fixture(scope="module")
def two(videos):
    return [videos / "bright/0 video.mp4", videos / "dark/0 video.mp4"]


def places(document):
    return [(one["path"], one.get("start_seconds"), one.get("end_seconds")) for one in document["predictions"]]


def write_list(path, rows, columns):
    if path.suffix == ".parquet":
        table = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
        parquet.write_table(pyarrow.table(table), path)
    elif path.suffix == ".txt":
        path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(between.join(map(str, row)) + "\n" for row in [columns, *rows]))
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".txt"])
@pytest.mark.parametrize("labeled", [True, False])
def test_a_manifest_is_its_rows_whether_they_have_labels_or_not(predict, model, two, tmp_path, ending, labeled):
    rows = [(str(path), "of no class of this model")[: 1 + labeled] for path in two]
    if ending == ".txt" and labeled:
        rows = [(path, 7) for path, _ in rows]
    file = write_list(tmp_path / f"list{ending}", rows, ("path", "label")[: 1 + labeled])
    code, document, _ = predict(file)
    assert code == 0
    assert places(document) == [(str(path), None, None) for path in two]
    found = evl.predict(model, file)
    wanted = evl.predict(model, two)
    assert [one.scores for one in found.predictions] == [one.scores for one in wanted.predictions]


def test_rows_that_are_parts_of_a_file_get_a_prediction_each(predict, model, videos, tmp_path, finished_run, capsys):
    rng = np.random.default_rng(0)
    levels = np.repeat([200, 50], 25)[:, None, None, None]
    write_video(tmp_path / "both.mp4", rng.normal(levels, 20, (50, 40, 56, 3)).clip(0, 255).astype(np.uint8))
    rows = [("both.mp4", "", 1), ("both.mp4", 1, 2), ("both.mp4", 30, 40), ("both.mp4", "", "")]
    file = write_list(tmp_path / "parts.csv", rows, ("path", "start_seconds", "end_seconds"))
    code, document, _ = predict(file)
    assert code == 1  # the third part lies behind the end
    path = str(tmp_path / "both.mp4")
    assert places(document) == [(path, None, 1), (path, 1, 2), (path, None, None)]
    assert [one["class"] for one in document["predictions"]][:2] == ["bright", "dark"]
    assert [(one["path"], one["start_seconds"]) for one in document["failed"]] == [(path, 30)]
    code, out, err = run_command(capsys, "predict", finished_run, file)
    assert code == 1
    assert "both.mp4#t=1,2" in out
    assert "both.mp4#t=30,40" in err
    found = evl.predict(model, file)
    assert [(one.start_seconds, one.end_seconds) for one in found.predictions] == [(None, 1), (1, 2), (None, None)]
    assert list(found.damaged) == [2]


def test_lists_that_are_wrong_are_refused_by_row(predict, two, tmp_path):
    for text, said in (
        ("path,start_seconds\na.mp4,soon\n", "row 2: start_seconds is 'soon'"),
        ("file,start\na.mp4,1\n", "rename 'file' to 'path'"),
        ("path,start\na.mp4,1\n", "rename it to 'start_seconds'"),  # it would be the whole video
        ("path\ndoor, open.mp4\n", "row 2"),
        ("path\n", "no videos in this list"),
        ('path,x\n"",1\n', "row 2: path is empty"),
    ):
        (tmp_path / "list.csv").write_text(text)
        code, document, err = predict(tmp_path / "list.csv")
        assert (code, document) == (1, None), text
        assert said in err, (text, err)
    code, _, err = predict(tmp_path / "nothing.csv")
    assert code == 1
    assert "cannot be read (No such file" in err


def test_mixed_arguments_keep_their_order(predict, videos, two, tmp_path):
    file = write_list(tmp_path / "list.txt", [(two[1],), (two[0],)], ("path",))
    code, document, _ = predict(two[0], file, videos / "dark")
    assert code == 0
    names = [path for path, _, _ in places(document)]
    assert names[:3] == [str(two[0]), str(two[1]), str(two[0])]
    assert len(names) == 9


class Stdin(io.TextIOWrapper):
    def __init__(self, content):
        super().__init__(io.BytesIO(content))


def test_paths_on_stdin(predict, two, monkeypatch):
    for between in (b"\n", b"\r\n", b"\0"):
        content = between.join(str(path).encode() for path in two) + between
        monkeypatch.setattr(sys, "stdin", Stdin(content))
        code, document, _ = predict("-")
        assert code == 0
        assert places(document) == [(str(path), None, None) for path in two], between
    monkeypatch.setattr(sys, "stdin", Stdin(b"gone.mp4\n\n" + str(two[0].parent).encode()))
    code, document, _ = predict(two[1], "-")
    assert code == 1
    assert len(document["predictions"]) == 7
    assert document["failed"] == [{"path": "gone.mp4", "error": "no such file"}]
    monkeypatch.setattr(sys, "stdin", Stdin(b"\n"))
    code, document, err = predict("-")
    assert (code, document) == (1, None)
    assert "no paths came on stdin" in err
    assert predict("-", "-")[0] == 2


def test_a_file_that_grows_is_waited_for_and_no_longer_than_told(predict, model, two, tmp_path, monkeypatch):
    code, _, err = predict(two[0], "--wait-limit", 3)
    assert code == 2
    assert "--wait" in err
    asked = []

    def fake(paths, limit):
        asked.append((list(paths), limit))
        (tmp_path / "new.mp4").write_bytes(two[0].read_bytes())  # it is complete by now
        return {str(two[1]): "still growing after 5 s of waiting"}

    monkeypatch.setattr(predictor, "wait_until_complete", fake)
    code, document, _ = predict(two[1], tmp_path / "new.mp4", "--wait", "--wait-limit", 5)
    assert code == 1
    assert places(document) == [(str(tmp_path / "new.mp4"), None, None)]
    assert document["failed"] == [{"path": str(two[1]), "error": "still growing after 5 s of waiting"}]
    found = evl.predict(model, [two[1], two[0], two[1]], wait_seconds=7)
    assert list(found.damaged) == [0, 2]
    assert [one.path for one in found.predictions] == [str(two[0])]
    assert [limit for _, limit in asked] == [5, 7]
    predict(two[0], "--wait")
    assert asked[-1][1] == predictor.LIMIT_SECONDS
    predict(two[0])
    assert len(asked) == 3


def test_ctrl_c_while_waiting_ends_with_130(predict, two, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "wait_until_complete", stop)
    code, document, err = predict(two[0], "--wait")
    assert (code, document) == (130, None)
    assert "stopped" in err


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "clips" / "film.mp4"
    path.parent.mkdir()
    write_video(path, np.full((800, 32, 32, 3), 100, np.uint8), options={"g": "50", "preset": "ultrafast"})
    return path


def test_one_label_for_a_long_video_is_told(predict, model, long_video, two, tmp_path):
    code, document, err = predict(long_video, two[0])
    assert code == 0
    assert f"1 of 2 videos is long, such as {long_video} (32 s): each gets one label" in err
    assert document["notices"][0] in err
    assert evl.predict(model, long_video).notices
    assert predict(two[0])[1]["notices"] == []
    # cut by time there is nothing to tell
    rows = [(long_video, start, start + 16) for start in (0, 16)]
    code, document, err = predict(write_list(tmp_path / "a.csv", rows, ("path", "start_seconds", "end_seconds")))
    assert (code, document["notices"]) == (0, [])
    assert "long" not in err


def test_check_and_training_tell_of_long_videos(long_video, two, tmp_path, capsys, tiny_config, monkeypatch):
    from evl.config import replace
    from evl.video import notices as long_videos

    monkeypatch.setattr(long_videos, "LEAST_SHARE", 0.5)  # of 800 frames the default views span 339
    code, out, _ = run_command(capsys, "check", long_video.parent.parent, "--workers", 0)
    assert code == 0
    assert "1 of 1 videos is long, such as" in " ".join(out.split())
    assert "film.mp4" in out
    (tmp_path / "a.csv").write_text(f"path,label,start_seconds,end_seconds\n{long_video},x,0,16\n")
    code, out, _ = run_command(capsys, "check", tmp_path / "a.csv", "--workers", 0)
    assert "long" not in out.replace(str(tmp_path), "").replace(str(long_video), "")
    rows = [(long_video, "x", "train"), (two[0], "y", "train"), (two[1], "y", "val")]
    config = replace(tiny_config, data={"path": str(write_list(tmp_path / "b.csv", rows, ("path", "label", "split")))})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    code, out, err = run_command(capsys, "train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run")
    assert code == 0, err
    assert "among the training videos read so far, 1 of 2 videos is long, such as" in " ".join(err.split())
