"""Damaged files: each is refused with a reason, by the reader alone, within bounds. They are read by processes of their
own, so that one that dies or hangs is noticed, named, and costs nothing but itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evl.video.reader import probe, read_frames
from tests.damage import make_damaged

# What the reader does not yet get right, by the name of the file. To be emptied.
KNOWN: dict[str, str] = {}


def read_all(files):
    """name → report of tests/read_damaged.py; goes on behind a file that killed the process."""
    reports, left = {}, dict(files)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    while left:
        done = subprocess.run(
            [sys.executable, "-m", "tests.read_damaged"],
            input="".join(f"{path}\n" for path in left.values()),
            capture_output=True,
            text=True,
            env=environment,
            cwd=root,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stderr
        for line in lines:
            if "name" in line:
                reports[line["name"]] = line
        last = lines[-1].get("reading")
        if last:  # and no report of it
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
            reports[last] = {"name": last, "outcome": f"died: {how}" if how != "SIGALRM" else "hung"}
        left = {name: path for name, path in left.items() if name not in reports}
    return reports


def problem(report, path):
    """None if the file is refused as it should be, or if there is nothing wrong with it that can be told."""
    if report["outcome"].startswith("refused"):
        return None
    if report["outcome"].startswith("read") and path.parent.name == "perhaps" and not report["broken"]:
        return None
    return report["outcome"]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    files = make_damaged(tmp_path_factory.mktemp("damaged"))
    return files, read_all(files)


def test_damaged_files_are_refused(collection):
    files, reports = collection
    problems = {name: problem(reports[name], path) for name, path in files.items()}
    problems = {name: what for name, what in problems.items() if what}
    assert {name: what for name, what in problems.items() if name not in KNOWN} == {}
    assert set(KNOWN) <= set(problems), "mended: take them out of KNOWN"


def test_memory_is_bounded(collection):
    greedy = {name: report for name, report in collection[1].items() if report.get("more_megabytes", 0) > 1000}
    assert greedy == {}


def test_two_hundred_are_really_damaged(collection):
    files, reports = collection
    refused = [name for name in files if reports[name]["outcome"].startswith("refused")]
    assert len(set(refused) - set(KNOWN)) >= 200


def test_sound_files_are_not_refused(collection):
    folder = next(iter(collection[0].values())).parents[1] / "sound"
    videos = [path for path in sorted(folder.iterdir()) if not path.name.startswith("a.")]
    assert len(videos) == 20
    for path in videos:
        assert read_frames(path, range(probe(path).num_frames)).shape[0] == (8 if path.suffix == ".y4m" else 40)
