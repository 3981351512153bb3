"""Scripts without ``if __name__ == "__main__":``, which Python runs again in every process that they start."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evl
from evl.collections.check import check_samples
from evl.training import train
from evl.training.sweeps.sweep import sweep
from evl.types import Sample

TRAIN = """
import evl
from evl.config import RunConfig, replace
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

_MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.2,)  # looks every 5 seconds whether a worker has died
CONFIG = replace(
    RunConfig(), backbone={{"image_size": 32}}, model={{"taps": "last 1", "decoder": "linear"}},
    clip={{"num_frames": 1}}, data={{"path": {videos!r}, "num_workers": 1}},
    training={{"steps": 2, "batch_size": 4, "eval_every": 0}}, evaluation={{"num_clips": 1}},
)
"""
CHECK = """
from evl.collections.check import check_samples
from evl.types import Sample

report = check_samples([Sample({video!r}, "bright")] * 2, num_workers=1)
print(len(report.good), "good")
"""
CHECK_TWICE = """
import os, sys
from evl.collections.check import check_samples
from evl.errors import RunError
from evl.types import Sample

if os.path.exists(sys.argv[0] + ".mark"):
    raise FileExistsError("made twice")
try:
    check_samples([Sample({video!r}, "bright")] * 2, num_workers=1)
except RunError as error:
    print(error)
open(sys.argv[0] + ".mark", "w").close()
check_samples([Sample({video!r}, "bright")] * 2, num_workers=1)
print("good")
"""
LOADER = """
import torch
from evl.data.loader import read_batches
from tests.data.test_loader import Numbers
print(list(read_batches(Numbers({count}), [[0, 1]], num_workers=1, device=torch.device("cpu"), collate=list)))
"""


def run(*arguments, stdin=None):
    """(exit code, output, errors) of Python."""
    root = str(Path(evl.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def script(tmp_path, text):
    (tmp_path / "script.py").write_text(text)
    return str(tmp_path / "script.py")


def is_told(err):
    return 'script.py needs if __name__ == "__main__": around' in err and "        main()\n" in err


@pytest.mark.slow
def test_a_run_without_guard_is_told_and_leaves_nothing_in_the_way(videos, tiny_config, tmp_path):
    start, out = TRAIN.format(videos=str(videos)), tmp_path / "run"
    code, _, err = run(script(tmp_path, f"{start}\nevl.train(CONFIG, {str(out)!r})\n"))
    assert code == 1
    assert is_told(err)
    assert "memory" not in err
    assert err.count("Traceback") == 1  # nothing of the other processes
    assert not out.exists()
    train(tiny_config, out)  # as the mended script does


@pytest.mark.slow  # test_parallel.py has a process that ends like this
def test_checking_without_guard_calls_no_file_damaged(videos, tmp_path):
    """Also where the script itself ends the other process, before it comes to what evl does: at the second call."""
    video = str(next(videos.rglob("*.mp4")))
    code, out, err = run(script(tmp_path, CHECK_TWICE.format(video=video)))
    assert code == 1
    assert "good" not in out
    assert is_told(out)
    assert is_told(err)
    assert "made twice" in err


# the list of 5000 does not fit into a pipe that nobody reads
@pytest.mark.parametrize("count", [pytest.param(3, marks=pytest.mark.slow), 5000])
def test_a_loader_without_guard(tmp_path, count):
    code, out, err = run(script(tmp_path, LOADER.format(count=count)))
    assert (code, out) == (1, "")
    assert is_told(err)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-c", "-"])
def test_without_a_script_there_is_nothing_to_guard(videos, way):
    text = CHECK.format(video=str(next(videos.rglob("*.mp4"))))
    assert (run("-c", text) if way == "-c" else run("-", stdin=text)) == (0, "2 good\n", "")


BEGINNINGS = {
    "a run": lambda config, folder: train(config, folder / "run"),
    "a sweep": lambda config, folder: sweep(config, ["training.lr=1e-3,1e-4"], folder / "run"),
    "a check": lambda config, folder: check_samples([Sample("a.mp4", "bright")], num_workers=1),
}


@pytest.mark.parametrize("what", BEGINNINGS)
def test_a_process_that_only_starts_begins_nothing(tiny_config, tmp_path, monkeypatch, what):
    """The twin of those above: Python runs the script again in a process that is marked like this."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    with pytest.raises(SystemExit) as stop:
        BEGINNINGS[what](tiny_config, tmp_path)
    assert is_told(str(stop.value))
    assert not (tmp_path / "run").exists()


def test_a_program_from_standard_input_may_check(videos, monkeypatch):
    """Python would look for a file of that name, and run it in the other process."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    samples = [Sample(str(path), "bright") for path in sorted(videos.rglob("*.mp4"))[:2]]
    assert len(check_samples(samples, num_workers=1).good) == 2
    assert sys.modules["__main__"].__file__ == "<stdin>"


def test_a_run_that_ends_before_its_first_step_leaves_no_folder(tiny_config, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("evl.training.learners.Learners.step", fail)
    (tmp_path / "run").mkdir()
    with pytest.raises(MemoryError):
        train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
