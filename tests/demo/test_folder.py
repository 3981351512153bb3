"""The folder of a demo: held, whole or gone, and those of killed demos removed."""

import os

import pytest

import evl.demo.folder
from evl.demo.folder import demo_folder
from evl.errors import RunError
from evl.runtime.out_folder import LOCK

OLD = "20200101-000000"


def test_a_demo_that_fails_leaves_nothing(tmp_path):
    def fail():
        with demo_folder(tmp_path / "demo") as folder:
            (folder / "motions").mkdir()
            (folder / "motions/a.mp4").touch()
            (folder / "report.html").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_demos_are_removed_and_no_others(tmp_path):
    for name in (OLD, "20200101-000001", "20200101-000002", "mine"):
        (tmp_path / name).mkdir()
    for name in (OLD, "mine"):
        (tmp_path / name / "report.html").touch()
    (tmp_path / OLD / LOCK).touch()  # of a dead process
    (tmp_path / "20200101-000001/report.html").touch()  # finished
    with demo_folder(tmp_path) as folder:
        (folder / "report.html").touch()
        assert sorted(os.listdir(tmp_path)) == ["20200101-000001", folder.name, "mine"]
        with demo_folder(tmp_path / "other") as other:
            (other / "file").touch()
    assert os.listdir(folder) == ["report.html"]


def test_one_folder_is_of_one_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(evl.demo.folder, "_TIME", OLD)
    with demo_folder(tmp_path) as folder:
        (folder / "motions").mkdir()
        with pytest.raises(RunError), demo_folder(tmp_path):
            pass
    with pytest.raises(RunError, match="exists already"), demo_folder(tmp_path):
        pass
    assert os.listdir(folder) == ["motions"]
