"""Which of several video streams is read: the film, by whatever reads it, and not what stands in front of it."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from evl.collections.check import check_file
from evl.collections.copy_video import prepare_video
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode import torchcodec
from evl.video.decode.index import frame_index, probe
from evl.video.decode.reader import read_clip, read_frames
from tests.helpers import Wanted, number_of, numbered_frames, run_command

FILM, SMALL = (96, 160), (48, 64)  # height, width
COVER, DEFAULT = Disposition.attached_pic, Disposition.default


def write(path, *streams):
    """Each: (codec, (height, width), number of frames, disposition or None, first number)."""
    with av.open(str(path), "w") as container:
        made = []
        for codec, (height, width), count, disposition, first in streams:
            stream = container.add_stream(codec, rate=25, options={"threads": "1", "g": "8"})
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if disposition is not None:
                stream.disposition = disposition
            made.append((stream, numbered_frames(first + count, height, width)[first:]))
        for number in range(max(len(frames) for _, frames in made)):
            for stream, frames in made:
                if number < len(frames):
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[number]), format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    container.mux(stream.encode(frame))
        for stream, _ in made:
            container.mux(stream.encode())


def assert_film(path, size=FILM, count=40):
    """Every reader takes the stream of this size."""
    info = probe(path)
    assert (info.height, info.width, info.num_frames) == (*size, count)
    assert frame_index(path).num_frames == count
    for verify in (False, True):
        clip = read_clip(path, Wanted(lambda count: range(1, count, 7)), verify=verify).frames
        assert clip.shape[-2:] == size
        assert [number_of(frame) for frame in clip] == list(range(1, count, 7))
    assert (check_file(Sample(str(path))).info.height, check_file(Sample(str(path))).info.width) == size
    copy = prepare_video(path, path.with_name("copy.mp4"))
    assert (copy.height, copy.width, copy.num_frames) == (*size, count)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.ts", "a.nut"])
def test_a_preview_of_one_picture_in_front_of_the_film(tmp_path, name):
    """In MP4 and MOV, FFmpeg marks the first stream as the default one."""
    write(tmp_path / name, ("libx264", SMALL, 1, None, 99), ("libx264", FILM, 40, None, 0))
    assert_film(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_default_stream_is_read_first_or_second(tmp_path, name):
    both = (("libx264", FILM, 40, None, 0), ("libx264", SMALL, 40, None, 99))
    for default in (0, 1):
        size = (FILM, SMALL)[default]
        streams = [(*stream[:3], DEFAULT if place == default else 0, 0) for place, stream in enumerate(both)]
        path = tmp_path / f"{default}-{name}"
        write(path, *streams)
        assert_film(path, size)


def test_a_cover_is_never_read_be_it_the_default_one(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, ("mjpeg", SMALL, 1, COVER | DEFAULT, 99), ("libx264", FILM, 40, 0, 0))
    assert_film(path)
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt, cover.disposition = *SMALL, "yuvj420p", COVER
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frames(1, *SMALL)[0], format="rgb24")))
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
        container.mux(cover.encode())
    with pytest.raises(VideoError, match=r"no video stream \(only audio\)"):
        probe(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_where_none_is_the_default_libav_says_which_is_best(tmp_path, name):
    path = tmp_path / name
    write(path, ("libx264", SMALL, 2, 0, 99), ("libx264", FILM, 40, 0, 0))
    with av.open(str(path)) as container:
        best = container.streams.best("video")
        assert not any(stream.disposition & DEFAULT for stream in container.streams.video)
        size = best.codec_context.height, best.codec_context.width
    assert size == FILM
    assert_film(path)


def test_one_picture_is_a_video_where_there_is_no_longer_one(tmp_path):
    path = tmp_path / "a.mkv"
    write(path, ("libx264", SMALL, 1, 0, 7), ("libx264", FILM, 1, DEFAULT, 9))
    assert probe(path).num_frames == 1
    assert read_frames(path, [0]).shape[-2:] == FILM


def test_torchcodec_is_told_which(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, ("libx264", SMALL, 1, None, 99), ("libx264", FILM, 40, None, 0))
    found = path.stat()
    assert torchcodec._stream_index(str(path), found.st_size, found.st_mtime_ns) == 1


def test_check_says_which_stream_is_read(tmp_path, capsys):
    write(tmp_path / "two.mp4", ("libx264", SMALL, 1, None, 99), ("libx264", FILM, 20, None, 0))
    write(tmp_path / "one.mp4", ("libx264", FILM, 20, None, 0))
    code, printed, _ = run_command(capsys, "check", tmp_path, "--workers", 0)
    assert code == 0
    (line,) = [line for line in printed.splitlines() if "several video streams" in line]
    assert "two.mp4: stream 1, 160×96, is read, not 0" in line
    assert "-map" in line
    _, printed, _ = run_command(capsys, "check", tmp_path, "--workers", 0, "--json")
    told = {Path(file["path"]).name: file["notices"] for file in json.loads(printed)["files"]}
    assert told["one.mp4"] == []
    assert "stream 1" in told["two.mp4"][0]
