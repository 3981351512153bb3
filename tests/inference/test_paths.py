"""What may be given as videos in Python, and what is said of all else."""

import os
import re
from pathlib import Path

import pytest

import evl
from evl.data.manifests.manifest import videos_at
from evl.errors import DataError, EVLError


@pytest.fixture(scope="module")
def video(videos):
    return sorted(videos.rglob("*.mp4"))[0]


@pytest.fixture(scope="module")
def model(finished_run):
    return evl.load(finished_run)


@pytest.mark.parametrize(
    "given", [os.fsencode, str, Path, lambda v: [os.fsencode(v)], lambda v: iter([v]), lambda v: {str(v): 1}]
)
def test_one_video_however_it_is_named(model, video, given):
    result = evl.predict(model, given(video))
    (prediction,) = result.predictions
    assert (prediction.path, result.damaged, result.paths) == (str(video), {}, (str(video),))
    assert prediction.scores == evl.predict(model, str(video)).predictions[0].scores


def test_a_folder_is_all_its_videos(model, videos):
    found = evl.predict(model, [videos / "dark", "missing.mp4"])
    assert [Path(one.path).name for one in found.predictions] == [f"{i} video.mp4" for i in range(6)]
    assert found.damaged == {6: "no such file"}
    assert found.paths[6] == "missing.mp4"


def test_nothing_asked_nothing_said(model):
    found = evl.predict(model, [])
    assert (found.predictions, found.damaged, found.paths) == ((), {}, ())


def test_a_folder_without_videos_is_refused(model, tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no videos in this folder")):
        evl.predict(model, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "expected one path or several, got int 5; give a str, bytes or pathlib.Path"),
        (None, "got NoneType None"),
        (["a.mp4", 5], "expected a path as number 1 of the list, got int 5"),
        ([["a.mp4"]], "number 0 of the list, got list"),
        ([("a.mp4", 0)], "number 0 of the list, got tuple"),
    ],
)
def test_what_is_no_path_is_refused(model, given, message):
    with pytest.raises(EVLError, match=re.escape(message)):
        evl.predict(model, given)
    with pytest.raises(TypeError):
        videos_at(given)


def test_an_open_file_is_no_list_of_paths(model, video):
    with open(video, "rb") as file, pytest.raises(EVLError, match="got BufferedReader"):
        evl.predict(model, file)


@pytest.mark.parametrize("address", ["https://example.org/a.mp4", "file:///a.mp4", Path("rtsp://example.org/a")])
def test_an_address_is_said_to_be_one(model, address):
    assert "is an address, not a file on this machine" in evl.predict(model, address).damaged[0]


def test_bytes_that_are_no_text(model, video, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.mp4"
    os.link(video, name)
    (prediction,) = evl.predict(model, name).predictions
    assert os.fsencode(prediction.path) == name


def test_views_of_bytes(video):
    options = dict(num_frames=2, stride=1, num_clips=1, num_crops=1, size=32, mean=(0, 0, 0), std=(1, 1, 1))
    assert evl.read_views(os.fsencode(video), **options).equal(evl.read_views(video, **options))
    with pytest.raises(TypeError, match="not int"):
        evl.read_views(5, **options)
