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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and memory are asked of Linux")
MOST_MEGABYTES = 400  # more than reading takes anyway

# What the reader does not yet get right, by the name of the file, and how it could tell. To be emptied.
CUT = {  # formats read as if whole up to where they were cut: (percent that is left), what tells
    "mkv.mkv": ((50, 70, 90, 99), "the Segment is longer than the file"),
    "webm.webm": ((10, 30, 50, 70, 90, 99), "the Segment is longer than the file"),
    "vp8.webm": ((30, 50, 70, 90, 99), "the Segment is longer than the file"),
    "live.mkv": (
        (50, 70, 90, 99),
        "no sizes of Segment and Cluster, but the last Block ends behind the file's end",
    ),
    "avi.avi": ((99,), "the RIFF is longer than the file (the index is cut)"),
    "mjpeg.avi": ((30, 99), "the RIFF is longer than the file"),
    "ts.ts": ((10, 30, 50, 70, 90, 99), "the size is no multiple of 188"),
    "mpg.mpg": ((10, 50, 90, 99), "the last packet's length runs behind the file's end"),
    "flv.flv": ((30, 50, 70, 90, 99), "the last tag ends behind the file's end; filesize and duration in onMetaData"),
    "ogg.ogv": (
        (10, 30, 50, 70, 90, 99),
        "the last page ends behind the file's end, or has no mark of the end",
    ),
    "ivf.ivf": ((10, 30, 50, 70, 90, 99), "the last frame ends behind the file's end; frames counted in the header"),
    "gif.gif": ((10, 30, 50, 70, 90, 99), "the byte 0x3B is not at the end"),
    "behind.mp4": ((99,), "the last box ends behind the file's end"),
    "hevc.mp4": ((99,), "the last box ends behind the file's end"),
    "av1.mp4": ((99,), "the last box ends behind the file's end"),
    "fragments.mp4": ((99,), "the last box ends behind the file's end"),
}
LENGTHS = dict.fromkeys(
    [
        "lie-segment-2^56-bytes.mkv",
        "lie-segment-twice-as-long.mkv",
        "lie-cluster-of-2^56-bytes.mkv",
        "lie-block-of-2^56-bytes.mkv",
        "lie-block-of-256-MB.mkv",
        "lie-riff-twice-as-long.avi",
        "lie-moov-box-of-4-GB.mp4",
        "lie-mdat-box-of-4-GB.mp4",
        "lie-moof-box-of-4-GB.fragments.mp4",
    ],
    "a length that runs behind the file's end",
)
THREADS = dict.fromkeys(  # read with one thread they are always refused
    [
        "cut-30-percent-h264.h264",
        "flips-4-ts.ts",
        "zeros-0-avi.avi",
        "zeros-1-mpg.mpg",
        "zeros-5-mpg.mpg",
        "zeros-7-mkv.mkv",
        "zeros-9-mkv.mkv",
    ],
    "with several threads an error in the last frames gets lost",
)
KNOWN = LENGTHS | THREADS
KNOWN |= {f"cut-{part}-percent-{name}": how for name, (parts, how) in CUT.items() for part in parts}
GREEDY = {  # file: why it takes so much memory
    "gif-16383x8191.gif": "pictures of 2^27 pixels, each 0.5 GB, and read_frames keeps 40 of them",
    "gif-65535x1023.gif": "pictures of 2^26 pixels, each 0.25 GB, and read_frames keeps 40 of them",
    "h264-16384x8192.h264": "a decoder holds several pictures of 2^27 pixels",
}


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
    mended = set(KNOWN) - set(problems) - set(THREADS)  # with threads it is a matter of luck
    assert mended == set(), "take them out of KNOWN"


def test_memory_is_bounded(collection):
    greedy = {
        name: report for name, report in collection[1].items() if report.get("more_megabytes", 0) > MOST_MEGABYTES
    }
    assert {name: report for name, report in greedy.items() if name not in GREEDY} == {}
    assert set(GREEDY) <= set(greedy), "mended: take them out of GREEDY"


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
