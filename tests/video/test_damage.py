"""Damaged files: each is refused with a reason, by the reader alone, within bounds. They are read by processes of their
own, so that one that dies or hangs is noticed, named, and costs nothing but itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evl.collections.check import check_samples
from evl.config import ClipConfig
from evl.data.dataset import Files, TrainingClips
from evl.types import Sample
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from tests.damage import make_damaged
from tests.helpers import made_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and memory are asked of Linux")
MOST_MEGABYTES = 400  # more than reading takes anyway

GREEDY = {"h264-16384x8192.h264": "FFmpeg's look at a raw stream holds pictures of 2^27 pixels before we have a say"}


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
    paths, reports = made_once(tmp_path_factory, "damaged", _make_and_read)
    return {name: Path(path) for name, path in paths.items()}, reports


def _make_and_read(folder):
    files = make_damaged(folder)
    return {name: str(path) for name, path in files.items()}, read_all(files)


def test_damaged_files_are_refused(collection):
    files, reports = collection
    problems = {name: problem(reports[name], path) for name, path in files.items()}
    assert {name: what for name, what in problems.items() if what} == {}


def test_memory_is_bounded(collection):
    greedy = {
        name: report for name, report in collection[1].items() if report.get("more_megabytes", 0) > MOST_MEGABYTES
    }
    assert {name: report for name, report in greedy.items() if name not in GREEDY} == {}


def test_two_hundred_are_really_damaged(collection):
    files, reports = collection
    refused = [name for name in files if reports[name]["outcome"].startswith("refused")]
    assert len(refused) >= 200


def test_sound_files_are_not_refused(collection):
    folder = next(iter(collection[0].values())).parents[1] / "sound"
    videos = [path for path in sorted(folder.iterdir()) if not path.name.startswith("a.")]
    assert len(videos) == 20
    for path in videos:
        assert read_frames(path, range(probe(path).num_frames)).shape[0] == (8 if path.suffix == ".y4m" else 40)


def test_check_and_loader_agree(collection):
    """On 150 of the files, spread over all kinds, and all sound ones: what one calls good the other trains on."""
    files, _ = collection
    sound = next(iter(files.values())).parents[1] / "sound"
    paths = [*list(files.values())[::4], *sorted(sound.iterdir())]
    samples = [Sample(str(path), "x") for path in paths]
    good = {file.sample.path for file in check_samples(samples, num_workers=2).good}
    dataset = TrainingClips(
        Files(samples), [0] * len(samples), ClipConfig(num_frames=2, stride=3), lambda clip, _: clip[:1], 0
    )
    trained = {path for i, path in enumerate(map(str, paths)) if dataset[0, i].pixels is not None}
    assert trained == good
    assert len(good) > 20
    assert len(paths) - len(good) > 80
