"""Output folders: who holds one, what a dead process left, folders that appear whole."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from evl.errors import RunError, SaveError
from evl.runtime import out_folder
from evl.runtime.files import is_used, remove_abandoned, write_atomically, write_file
from evl.runtime.out_folder import LOCK, build_folder, hold_folder, hold_lock, lock_beside, refuse_held
from tests.runtime.deaths import each_death

HOLD = """
import sys, time
from pathlib import Path
from evl.runtime.out_folder import hold_folder
with hold_folder(Path(sys.argv[1]), False, is_begun=lambda: False):
    print("held", flush=True)
    time.sleep(60)
"""
MADE = ("train.csv", "config.yaml")


def held(folder, resume=False, made=MADE):
    return hold_folder(folder, resume, is_begun=lambda: (folder / "config.yaml").is_file(), made=made)


def write_files(folder, *names):
    for name in names:
        write_file(folder / name, "")


def test_a_second_process_is_refused_and_the_lock_of_a_dead_one_is_taken_over(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        sentence = rf"out: process {process.pid} on {socket.gethostname()} has been writing here since \d{{4}}-.*; wait"
        with pytest.raises(RunError, match=sentence), held(out):
            pass
        process.send_signal(signal.SIGKILL)
    assert (out / LOCK).exists()
    with held(out) as goes_on:
        assert not goes_on
        assert json.loads((out / LOCK).read_text())["process"] == os.getpid()
    assert not out.exists()  # nothing was written


def test_the_lock_is_of_one_thread_too_and_leaves_nothing(tmp_path):
    with held(tmp_path / "a/b"):
        with pytest.raises(RunError, match="has been writing here"), held(tmp_path / "a/b"):
            pass
        with pytest.raises(RunError, match="has been writing here"), held(tmp_path / "a/b", "auto"):
            pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="cannot be written to"), hold_lock(tmp_path / "file/x", tmp_path / "file"):
        pass


def test_without_locks_a_living_process_of_this_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(out_folder, "lock_file", lambda descriptor, wait=False: None)
    lock = tmp_path / LOCK
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = {"host": socket.gethostname(), "process": os.getppid(), "since": "then"}
    lock.write_text(json.dumps(me))
    with pytest.raises(RunError, match="since then"), hold_lock(lock, tmp_path):
        pass
    for other in ({**me, "process": ended.pid}, {**me, "host": "elsewhere"}, {}, [], {**me, "host": 5}):
        lock.write_text(json.dumps(other))
        with hold_lock(lock, tmp_path) as was_left:
            assert was_left
        assert not lock.exists()


def test_a_lock_that_says_nothing_or_lies_is_still_a_lock(tmp_path):
    with hold_lock(tmp_path / LOCK, tmp_path):
        for content in ("", "{", '{"host": "\\u001b[31m", "process": 1, "since": "x"}', '{"process": "x"}'):
            (tmp_path / LOCK).write_text(content)
            with pytest.raises(RunError) as error, hold_lock(tmp_path / LOCK, tmp_path):
                pass
            assert "another process of evl is writing here" in str(error.value)
            assert "\x1b" not in str(error.value)


def test_what_a_dead_process_left_is_begun_again_but_not_the_files_of_others(tmp_path):
    (tmp_path / "train.csv").write_text("mine")
    with pytest.raises(RunError, match="not empty; choose another"), held(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["train.csv"]

    (tmp_path / LOCK).touch()  # of a dead process that was beginning
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty; choose another"), held(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "train.csv"]

    (tmp_path / "mine.txt").unlink()
    (tmp_path / LOCK).touch()
    (tmp_path / ".train.csv.01234567.tmp").touch()
    with held(tmp_path) as goes_on:
        assert not goes_on
        assert os.listdir(tmp_path) == [LOCK]
        (tmp_path / "config.yaml").touch()
    assert os.listdir(tmp_path) == ["config.yaml"]
    with pytest.raises(RunError, match="go on with `resume=True`"), held(tmp_path):
        pass
    with held(tmp_path, "auto") as goes_on:
        assert goes_on


def test_what_is_not_begun_to_the_end_is_taken_back(tmp_path):
    with pytest.raises(SaveError), held(tmp_path / "out"):
        write_files(tmp_path / "out", "train.csv", "train.csv/below")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_is_there_whole_or_as_before_at_every_death(tmp_path, replace):
    out = tmp_path / "best"

    def write(content="new"):
        with build_folder(out, replace=replace) as folder:
            write_file(folder / "weights", content)
            write_file(folder / "card", content)

    for _ in each_death(write):
        if replace and not out.exists():
            remove_abandoned(tmp_path)
        if out.exists():
            assert {path.read_text() for path in out.iterdir()} <= {"new", "old"}
            assert len({path.read_text() for path in out.iterdir()}) == 1
            assert len(os.listdir(out)) == 2
        if replace or not out.exists():
            write("old")
        assert os.listdir(tmp_path) == ["best"]
        if not replace:
            for path in out.iterdir():
                path.unlink()
            out.rmdir()


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SaveError), build_folder(out) as folder:
        write_files(folder, "file", "file/below")
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / ".evl.lock").touch()
    with build_folder(out) as folder:
        (folder / "file").write_text("whole")
    assert os.listdir(out) == ["file"]
    with pytest.raises(RunError, match="not empty"), build_folder(out):
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_have_one_beside_it_is_filled_where_it_is(tmp_path, monkeypatch):
    assert lock_beside(tmp_path / "out") == tmp_path / ".out.evl.lock"
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    assert lock_beside(tmp_path / "out") == tmp_path / "out" / LOCK
    with build_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"


def test_strays_beside_a_file_go_when_it_is_written_again_and_no_others(tmp_path):
    strays = [".a.npy.01234567.tmp", ".a.npy.b.01234567.tmp", ".b.npy.01234567.tmp", ".a.npy.0123456.tmp"]
    for name in strays:
        (tmp_path / name).touch()
    with write_atomically(tmp_path / "a.npy") as living, write_atomically(tmp_path / "a.npy") as file:
        file.write(b"one")
        living.write(b"other")
    assert sorted(os.listdir(tmp_path)) == sorted([*strays[1:], "a.npy"])
    write_file(tmp_path / "b.npy", b"", one_of_many=True)
    assert (tmp_path / strays[2]).exists()
    assert is_used(tmp_path)


def test_a_lock_is_looked_at_without_taking_it(tmp_path, monkeypatch):
    refuse_held(tmp_path / LOCK, tmp_path)
    with hold_lock(tmp_path / LOCK, tmp_path):
        with pytest.raises(RunError, match="has been writing here"):
            refuse_held(tmp_path / LOCK, tmp_path)
        assert (tmp_path / LOCK).exists()
    (tmp_path / LOCK).write_text("of a dead process")
    refuse_held(tmp_path / LOCK, tmp_path)
    assert (tmp_path / LOCK).read_text() == "of a dead process"
    content = {"host": socket.gethostname(), "process": os.getppid(), "since": "then"}
    (tmp_path / LOCK).write_text(json.dumps(content))
    monkeypatch.setattr(out_folder, "lock_file", lambda descriptor, wait=False: None)  # a file system without locks
    with pytest.raises(RunError, match="since then"):
        refuse_held(tmp_path / LOCK, tmp_path)
