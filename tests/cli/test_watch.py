"""evl watch: what it prints, and how it ends."""

import json
import os
import signal

import pytest

import evl
from evl.watching.folder import FolderScan
from tests.cli.test_timeline import film as film  # a fixture
from tests.helpers import run_command


def test_json_lines_of_a_file(finished_run, film, capsys):
    code, text, message = run_command(capsys, "watch", finished_run, film, "--json", "--scores", "--stats")
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert "60 frames read" in message
    line = evl.timeline(str(finished_run), film)
    ends = [one for one in lines if one["event"] == "end"]
    assert [one["label"] for one in ends] == [one.label for one in line.segments] == ["dark", "bright", "dark"]
    assert [one["seconds"] for one in ends] == pytest.approx([one.end_seconds for one in line.segments])
    assert sum(one["event"] == "scores" for one in lines) == len(line.times)
    assert lines[-1]["event"] == "stats"
    assert lines[-1]["frames"] == 60


def test_text_and_a_name_that_would_steer_the_terminal(finished_run, film, tmp_path, capsys):
    path = tmp_path / "a\x1b[2J.mp4"
    path.write_bytes(film.read_bytes())
    code, text, message = run_command(capsys, "watch", finished_run, path, tmp_path / "no.mp4")
    assert (code, text) == (2, "")
    assert "cannot be watched" in message
    code, text, message = run_command(capsys, "watch", finished_run, path, "--stats")
    assert code == 0
    assert text.count("begins") == text.count("ends after") == 3
    assert "delay" in text
    assert "\x1b" not in text + message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(finished_run, tmp_path, capsys, monkeypatch, number):
    signals = [number]  # one, when the folder is first looked into
    monkeypatch.setattr(
        FolderScan, "ready", lambda scan: [os.kill(os.getpid(), signals.pop()) for _ in signals[:1]][:0]
    )
    before = signal.getsignal(signal.SIGTERM)
    code, text, message = run_command(capsys, "watch", finished_run, tmp_path, "--json")
    assert (code, text) == (0, "")
    assert "1 source" in message
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_source_that_is_given_up(finished_run, capsys):
    code, _, message = run_command(capsys, "watch", finished_run, "http://ann:secret@127.0.0.1:9/", "--retries", "0")
    assert code == 1
    assert "failed" in message
    assert "secret" not in message
