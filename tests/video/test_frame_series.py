"""Which pictures of a folder are the frames of its video, in which order; what does not say it is refused."""

import json
import random
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from evl.collections.check import check_file
from evl.collections.copy_video import prepare_video
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode.frame_folder import frame_files, probe_folder
from evl.video.decode.frame_series import UnclearError, frames_among, gaps
from evl.video.decode.reader import read_frames
from tests.helpers import run_command

SIX = range(1, 7)


def numbered(pattern, numbers=SIX):
    return [pattern.format(number) for number in numbers]


def times(pattern, start, step, count=12):
    first = datetime(2024, 1, 1, *start)
    return [format(first + i * timedelta(seconds=step), pattern) for i in range(count)]


RGB = numbered("img_{:05d}.jpg")
CHOSEN = {  # what is the video: what lies beside it
    "flow": (RGB, [numbered("flow_x_{:05d}.jpg"), numbered("flow_y_{:05d}.jpg")]),
    "flow, more of it": (RGB, [numbered("flow_x_{:05d}.jpg", range(50))]),
    "u and v": (numbered("frame{:06d}.jpg"), [numbered("u{:06d}.jpg"), numbered("v{:06d}.jpg")]),
    "x and y": (numbered("image_{:04d}.jpg"), [numbered("x_{:04d}.jpg"), numbered("y_{:04d}.jpg")]),
    "depth": (numbered("rgb_{:04d}.jpg"), [numbered("depth_{:04d}.png")]),
    "depth behind the number": (numbered("{:04d}_color.png"), [numbered("{:04d}_depth.png")]),
    "mask": (numbered("{:04d}.jpg"), [numbered("{:04d}_mask.png")]),
    "masks and depth": (numbered("{:04d}.jpg"), [numbered("{:04d}_mask.png"), numbered("{:04d}.depth.png")]),
    "a word in all names": (numbered("mask_dance_{:02d}.jpg"), [numbered("mask_dance_depth_{:02d}.png")]),
    "cover": (RGB, [["cover.jpg"]]),
    "covers": (RGB, [["Folder.jpg"], ["poster.png"], ["AlbumArtSmall.jpg"], ["thumb.jpg"]]),
    "numbered thumbnail": (RGB, [["thumbnail_1.jpg"]]),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_series_that_is_pictures_is_taken(name):
    frames, others = CHOSEN[name]
    mixed = [*frames, *(other for series in others for other in series)]
    for seed in range(3):
        random.Random(seed).shuffle(mixed)
        found = frames_among(tuple(mixed))
        assert list(found.series.names) == frames
        assert sorted(list(series.names) for series in found.left_out) == sorted(others)


ONE_SERIES = {
    "padded": RGB,
    "not padded": numbered("img_{}.jpg", range(8, 13)),
    "only numbers": numbered("{}.png", range(8, 13)),
    "padded to a point": numbered("{:02d}.jpg", range(98, 103)),
    "in brackets": numbered("frame ({}).jpg", range(1, 13)),
    "with a gap": numbered("{:04d}.jpg", [1, 2, 3, 7, 8]),
    "other endings and cases": ["img_1.jpg", "IMG_2.JPG", "img_3.jpeg", "img_4.png"],
    "one number stays": numbered("video2_frame{:04d}.jpg", range(8, 13)),
    "counter and time": [f"frame{i:04d}_{33 * i:06d}.jpg" for i in range(40)],
    "counter and second": [f"frame{i:04d}_second{i // 25}.jpg" for i in range(60)],
    "time and counter": [f"{1000 + 33 * i}_{i}.jpg" for i in range(12)],
    "date and time": times("%Y-%m-%d_%H-%M-%S.jpg", (12, 0, 55), 1),
    "over midnight": times("IMG_%Y%m%d_%H%M%S.jpg", (23, 59, 55), 1),
    "over an hour, unevenly": sorted([*times("%Y.%m.%d %H.%M.%S.jpg", (12, 59, 0), 700), "2024.01.01 12.59.01.jpg"]),
    "parts of a second": times("%Y%m%d_%H%M%S_%f.jpg", (12, 0, 59), 0.25),
    "clock": times("%H-%M-%S.jpg", (11, 59, 57), 1),
    "clock with letters": times("snap-%Hh%Mm%Ss.png", (11, 59, 50), 5),
    "seconds since 1970": [f"{1305031100 + i // 3}.{i % 3 * 300000 + i:06d}.png" for i in range(12)],
    "seconds": [f"{i * 125 // 1000}.{i * 125 % 1000:03d}.jpg" for i in range(20)],
    "one picture": ["whatever.jpg"],
    "one picture of several numbers": ["a1b2c3.png"],
    "flow alone": numbered("flow_x_{:05d}.jpg"),
    "accents written in two ways": ["cafe\u0301_1.jpg", "caf\u00e9_2.jpg"],
}


@pytest.mark.parametrize("name", ONE_SERIES)
def test_one_series_in_the_order_of_its_numbers(name):
    names = ONE_SERIES[name]
    for seed in range(3):
        mixed = list(names)
        random.Random(seed).shuffle(mixed)
        found = frames_among(tuple(mixed))
        assert list(found.series.names) == names
        assert found.left_out == ()


UNCLEAR = {
    "stereo": (numbered("left_{:04d}.jpg") + numbered("right_{:04d}.jpg"), ["left_#.jpg (6)", "right_#.jpg (6)"]),
    "infrared": (numbered("rgb_{}.jpg") + numbered("ir_{}.jpg"), ["rgb_#.jpg (6)", "ir_#.jpg (6)"]),
    "two endings": (numbered("img_{:05d}.jpg") + numbered("img_{:05d}.png"), ["img_#.jpg (6)", "img_#.png (6)"]),
    "two endings in part": ([*numbered("{}.jpg"), "3.png", "9.png"], ["#.jpg (6)", "#.png (2)"]),
    "two kinds of flow": (numbered("flow_x_{}.jpg") + numbered("flow_y_{}.jpg"), ["flow_x_#.jpg (6)"]),
    "two videos": (
        [f"video{v}_frame{i:04d}.jpg" for v in (1, 2) for i in SIX],
        ["video1_frame#.jpg (6)", "video2_frame#.jpg (6)"],
    ),
    "two videos, numbered on": (
        [f"video{1 + i // 6}_frame{i:04d}.jpg" for i in range(12)],
        ["video1_frame#.jpg (6)", "video2_frame#.jpg (6)"],
    ),
    "two videos in a date's clothes": (
        [f"{v}_2024-01-01_12-00-{i:02d}.jpg" for v in (1, 2) for i in SIX],
        ["1_2024-01-01_12-00-#.jpg (6)"],
    ),
    "cameras behind the number": ([f"{i:04d}_cam{c}.jpg" for c in (1, 2) for i in SIX], ["#_cam1.jpg (6)"]),
    "shots with a dot": ([f"shot{v}.{i:04d}.jpg" for v in (1, 2) for i in SIX], ["shot1.#.jpg (6)"]),
    "shots of a thousand": ([f"{v}.{i:03d}.jpg" for v in (1, 2) for i in range(1000)], ["1.#.jpg (1000)"]),
    "subject, trial, frame": ([f"01-{t:02d}-{i:02d}.jpg" for t in (1, 2) for i in SIX], ["01-01-#.jpg (6)"]),
    "no clock": ([f"01-{m}-{i}.jpg" for m in (61, 62) for i in (10, 20)], ["01-61-#.jpg (2)"]),
    "one more picture": ([*RGB, "holiday.jpg"], ["img_#.jpg (6)", "holiday.jpg"]),
    "a copy": ([*RGB, "img_00001 (1).jpg"], ["img_00001 (1).jpg"]),
    "the first without number": (["frame.jpg", *numbered("frame ({}).jpg")], ["frame.jpg"]),
    "hashes": (["0a1f.jpg", "b2.jpg", "cc93e.jpg"], ["order", "0a1f.jpg, b2.jpg, cc93e.jpg", "number them"]),
    "words": (["a.jpg", "b.jpg"], ["order", "a.jpg, b.jpg"]),
    "many hashes": ([f"{'abcdefgh'[i]}{i}{'abcdefgh'[i]}.jpg" for i in range(8)], ["and 2 more"]),
    "the same number twice": (["1.jpg", "01.jpg", "2.jpg"], ["same number, 01.jpg and 1.jpg", "remove one"]),
    "the same name in two cases": (["a1.jpg", "A1.JPG"], ["same number, A1.JPG and a1.jpg"]),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_names_do_not_say_is_refused_with_the_series_listed(name):
    names, parts = UNCLEAR[name]
    with pytest.raises(UnclearError) as caught:
        frames_among(tuple(names))
    assert all(part in str(caught.value) for part in parts), caught.value


def test_gaps_are_found_in_counters_and_not_in_times():
    assert gaps(frames_among(tuple(RGB)).series) == ()
    assert gaps(frames_among(("1.jpg", "2.jpg", "3.jpg", "6.jpg", "7.jpg", "9.jpg")).series) == ("6.jpg", "9.jpg")
    assert gaps(frames_among(tuple(numbered("{}.jpg", range(0, 50, 5)))).series) == ()  # every fifth
    assert gaps(frames_among(tuple(numbered("{}.jpg", [0, 33, 67, 100, 133, 167, 200]))).series) == ()
    assert gaps(frames_among(tuple(ONE_SERIES["date and time"])).series) == ()


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 48, 3), value, np.uint8)).save(path)


@pytest.fixture
def flow_folder(tmp_path):
    """A class of one folder: frames 10, 20, …, 60, flow of 200 that sorts in front of them, a cover, Windows' cache."""
    folder = tmp_path / "data/walking/v1"
    for number in SIX:
        picture(folder / f"img_{number:05d}.png", 10 * number)
        for axis in "xy":
            picture(folder / f"flow_{axis}_{number:05d}.png", 200)
    picture(folder / "cover.png", 250)
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder


def test_every_reader_takes_the_frames_only(flow_folder, tmp_path):
    assert [file.name for file in frame_files(flow_folder)] == numbered("img_{:05d}.png")
    assert probe_folder(flow_folder).num_frames == 6
    values = [10, 20, 30, 40, 50, 60]
    assert read_frames(flow_folder, range(6))[:, 0, 0, 0].tolist() == values
    assert read_frames(flow_folder, [5, 0])[:, 0, 0, 0].tolist() == [60, 10]
    assert prepare_video(flow_folder, tmp_path / "copy.mp4").num_frames == 6
    copied = read_frames(tmp_path / "copy.mp4", range(6))[:, 0].float().mean((1, 2))
    assert np.abs(copied.numpy() - values).max() < 3


def test_check_says_what_is_left_out_and_refuses_what_is_unclear(flow_folder, capsys):
    root = flow_folder.parent.parent
    for number in (1, 2, 5):
        picture(root / f"walking/gap/{number}.png", 1)
        picture(root / f"walking/plain/{number}0.png", 1)
    code, printed, _ = run_command(capsys, "check", root, "--workers", 0)
    assert code == 0
    (line,) = [line for line in printed.splitlines() if "more pictures in a folder" in line]
    assert f"{flow_folder}: img_#.png (6) is read, not cover.png, flow_x_#.png (6), flow_y_#.png (6)" in line
    (line,) = [line for line in printed.splitlines() if "missing numbers" in line]
    assert f"{root / 'walking/gap'}: before 5.png" in line

    for number in SIX:
        picture(root / f"walking/two/left_{number}.png", 1)
        picture(root / f"walking/two/right_{number}.png", 1)
    code, printed, _ = run_command(capsys, "check", root, "--workers", 0, "--json")
    assert code == 1
    document = json.loads(printed)
    (problem,) = [file["problem"] for file in document["files"] if "problem" in file]
    assert "left_#.png (6), right_#.png (6)" in problem
    assert document["num_good"] == 3
    two = root / "walking/two"
    for read in (probe_folder, lambda path: read_frames(path, [0]), lambda path: prepare_video(path, root / "a.mp4")):
        with pytest.raises(VideoError, match="several series of pictures"):
            read(two)
    assert "several series" in check_file(Sample(str(two))).problem
