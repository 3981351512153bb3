"""torchcodec gives the frames that PyAV gives, or is not asked. Being an optional extra, it has a stand-in here
with its interface; the last test (-m torchcodec) needs the real one."""

import sys
from types import SimpleNamespace

import pytest
import torch

from evl.errors import ConfigError
from evl.video.decode import torchcodec
from evl.video.decode.index import counted_index, frame_index
from evl.video.decode.reader import read_clip, read_frames
from tests.helpers import Wanted, numbered_frames, write_video
from tests.makers import boxes, shown_by

WANTED = [3, 17, 18, 44]


@pytest.fixture
def stand_in(monkeypatch):
    """Installs a torchcodec that reads with evl's own reader, and can be told to do wrong."""
    calls = SimpleNamespace(made=[], late=0.0, short=0, fail=False)

    class VideoDecoder:
        def __init__(self, source, **options):
            calls.made.append((source, options))
            self.source = source
            if calls.fail:
                raise RuntimeError("cannot open")

        def __len__(self):
            return frame_index(self.source).num_frames - calls.short

        def get_frames_at(self, indices):
            times = torch.from_numpy(frame_index(self.source).times_seconds[indices]) + calls.late
            frames = 255 - read_frames(self.source, indices).permute(0, 2, 3, 1)  # to tell who has read it
            return SimpleNamespace(data=frames, pts_seconds=times)

    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=VideoDecoder))
    return calls


def asked(path):
    clip = read_clip(path, Wanted(lambda count: WANTED), decoder="torchcodec").frames
    truth = read_frames(path, WANTED)
    assert torch.equal(clip, truth) or torch.equal(clip, 255 - truth)
    return not torch.equal(clip, truth)


def test_it_is_asked_for_files_it_reads_exactly(tmp_path, stand_in):
    path = write_video(tmp_path / "a.mp4", numbered_frames(50), options={"bf": "2"})
    assert asked(path)
    source, options = stand_in.made[0]
    assert source == str(path)
    assert options["seek_mode"] == "exact"
    assert options["device"] == "cpu"
    assert asked(write_video(tmp_path / "a.mkv", numbered_frames(50)))
    verified = read_clip(path, Wanted(lambda count: WANTED), decoder="torchcodec", verify=True).frames
    assert torch.equal(verified, read_frames(path, WANTED))  # damage only PyAV can see


@pytest.mark.parametrize("wrong", [dict(late=0.04), dict(short=1), dict(fail=True)])
def test_where_it_contradicts_the_packets_pyav_reads(tmp_path, stand_in, wrong):
    vars(stand_in).update(wrong)
    assert not asked(write_video(tmp_path / "a.mp4", numbered_frames(50)))
    assert stand_in.made


def test_it_is_not_asked_for_what_it_reads_wrongly(tmp_path, stand_in):
    assert not asked(write_video(tmp_path / "a.ts", numbered_frames(50), options={"bf": "2"}))
    assert not asked(write_video(tmp_path / "a.avi", numbered_frames(50), codec="mpeg4", options={"bf": "2"}))
    for number, matrix in enumerate([(0, 1, -1, 0), (1, 0, 0, -1), (-1, 0, 0, 1)]):  # its versions differ in these
        boxes(tmp_path / f"turned-{number}.mp4", shown_by(*matrix))
        assert not asked(tmp_path / f"turned-{number}.mp4")
    path = write_video(tmp_path / "a.mp4", numbered_frames(50))
    assert torchcodec.read(str(path), counted_index(path), WANTED, "torchcodec") is None
    assert not stand_in.made


def test_its_absence_is_told_before_training(monkeypatch):
    torchcodec.require("pyav")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ConfigError, match="pip install torchcodec, or use pyav"):
        torchcodec.require("torchcodec")


@pytest.mark.torchcodec
def test_the_real_one_gives_the_same_frames(tmp_path):
    torchcodec.require("torchcodec")
    for name, options in (("a.mp4", {"bf": "3"}), ("b.mkv", {"g": "7"}), ("c.mp4", {"g": "1"})):
        path = write_video(tmp_path / name, numbered_frames(50, 63, 98)[:, :62], options=options)
        pictures = torchcodec.read(str(path), frame_index(path), WANTED, "torchcodec")
        assert pictures is not None
        for number, frame in zip(WANTED, read_frames(path, WANTED), strict=True):
            assert torch.equal(torch.from_numpy(pictures[number]).permute(2, 0, 1), frame)
