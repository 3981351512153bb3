"""evl prepare as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from evl.video.decode.index import probe
from tests.helpers import numbered_frames, run_command, write_video


@pytest.fixture
def run(capsys):
    return partial(run_command, capsys)


def test_a_report_in_words(run, videos, tmp_path):
    out = tmp_path / "copies"
    code, text, _ = run("prepare", videos, "--out", out, "--short-side", 32, "--workers", 2)
    assert code == 0
    assert "12 videos: 12 copied, 0 damaged" in text
    assert "MB before" in text
    assert "8x16 clips a second, one core:" in text
    assert f"next: evl train --data {out}" in text
    assert len(list(out.rglob("*.mp4"))) == 12
    info = probe(out / "dark" / "3 video.mp4")
    assert (info.num_frames, info.width, info.height) == (12, 44, 32)
    code, text, _ = run("prepare", videos, "--out", out, "--short-side", 32)
    assert code == 0
    assert "12 copied (12 were there)" in text
    code, _, err = run("prepare", videos, "--out", out)
    assert code == 1
    assert "contains copies with short_side 32, not 256" in err


def test_json_is_one_document_and_damage_exits_with_1(run, tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "good.mp4", numbered_frames(20))
    (tmp_path / "data" / "[bad].mp4").write_text("hello")
    code, text, _ = run("prepare", tmp_path / "data", "--out", tmp_path / "out", "--every", 2, "--gop", 4, "--json")
    document = json.loads(text)
    assert code == 1
    assert document["settings"] == {"short_side": 256, "gop": 4, "every": 2, "quality": 20}
    assert (document["num_files"], document["num_made"]) == (2, 1)
    assert document["bytes_before"] == (tmp_path / "data" / "good.mp4").stat().st_size
    assert document["bytes_after"] == (tmp_path / "out" / "good.mp4").stat().st_size
    assert document["damaged"][0]["path"] == str(tmp_path / "data" / "[bad].mp4")
    assert document["loading"]["num_clips"] == 2
    assert document["loading"]["ratio"] > 0
    report = json.loads((tmp_path / "out" / "prepare.json").read_text())["report"]
    assert report == {key: value for key, value in document.items() if key not in ("out", "settings")}
    code, text, _ = run("prepare", tmp_path / "data", "--out", tmp_path / "out", "--every", 2, "--gop", 4)
    assert code == 1
    assert "damaged: " in text
    assert "[bad].mp4" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--short-side", "31"], "short_side 31: expected an even number"),
        (["--every", "0"], "every 0: expected 1"),
        (["--gop", "0"], "gop 0: expected frames"),
        (["--quality", "99"], "quality 99: expected a rate factor"),
    ],
)
def test_wrong_settings_are_told(run, videos, tmp_path, arguments, message):
    code, _, err = run("prepare", videos, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # tests/collections/test_prepare.py stops one in the process of the tests
def test_ctrl_c_stops_cleanly_and_goes_on(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    first = write_video(data / "000.mp4", numbered_frames(200, 256, 340)).read_bytes()
    for i in range(1, 100):
        (data / f"{i:03}.mp4").write_bytes(first)
    command = [sys.executable, "-m", "evl", "prepare", str(data), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    journal = out / "prepare.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_text()):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers, too
    _, err = process.communicate()
    assert process.returncode == 130
    assert "of 100 files are done and stay; the same command makes the others" in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(out.rglob("*.tmp"))
    done = len(journal.read_text().splitlines())
    assert 0 < done < 100
    assert all(probe(path).num_frames == 200 for path in out.rglob("*.mp4"))
