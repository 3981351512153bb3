"""No more is decoded than is needed, and what is decoded is believed only as far as it agrees with the packets."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from evl.errors import VideoError
from evl.video.decode import reader
from evl.video.decode.index import counted_index, frame_index
from evl.video.decode.packets import num_shown
from evl.video.decode.reader import read_clip, read_frames
from evl.video.views import read_views
from tests.helpers import Wanted, number_of, numbered_frames, write_video


@pytest.fixture
def path(tmp_path):
    """120 frames, a key frame at every 30th, B-frames between."""
    options = {"g": "30", "bf": "2", "sc_threshold": "0"}
    return str(write_video(tmp_path / "a.mp4", numbered_frames(120), options=options))


@pytest.fixture
def decoded(monkeypatch):
    """The places of all packets that were given to the decoder, and the files opened."""
    seen, opened = [], []
    packets, opens = reader.packets_from, av.open

    def note(*arguments, **options):
        for place, packet in packets(*arguments, **options):
            seen.append(place)
            yield place, packet

    monkeypatch.setattr(reader, "packets_from", note)
    monkeypatch.setattr(av, "open", lambda *a, **o: opened.append(a) or opens(*a, **o))
    return seen, opened


def test_plans_are_arithmetic(path):
    index = frame_index(path)
    assert index.num_frames == 120
    assert index.keys.tolist() == [0, 30, 60, 90]
    assert index.plan([5]) == [(0, [5])]
    assert index.plan([5, 29, 31, 61, 62, 119]) == [(0, [5, 29, 31]), (60, [61, 62]), (90, [119])]
    assert index.plan([28, 30]) == [(0, [28]), (30, [30])]
    assert index.plan(list(range(120))) == [(0, list(range(120)))]


def test_only_what_is_needed_is_decoded(path, decoded):
    frame_index(path)
    seen, opened = decoded
    opened.clear()
    assert [number_of(frame) for frame in read_frames(path, [119, 95])] == [119, 95]
    assert min(seen) == 90
    assert len(opened) == 1
    seen.clear()
    assert number_of(read_frames(path, [61])[0]) == 61
    assert 60 <= min(seen) <= max(seen) <= 64  # the packets of frame 61 and of what it refers to
    seen.clear()
    read_frames(path, [2, 118])
    assert not any(10 < place < 90 for place in seen)


def test_views_of_a_video_share_one_opening(path, decoded):
    frame_index(path)
    decoded[1].clear()
    read_views(path, num_frames=4, stride=8, num_clips=3, num_crops=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert len(decoded[1]) == 1


def test_the_callers_threads_and_calls_change_nothing(path):
    once = read_frames(path, range(0, 120, 7))
    assert torch.equal(read_frames(path, range(0, 120, 7)), once)
    assert torch.equal(once, torch.cat([read_frames(path, [i]) for i in range(0, 120, 7)]))


def test_damage_is_seen_where_it_is_needed_and_everywhere_when_verifying(path, tmp_path):
    with av.open(path) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(Path(path).read_bytes())
    start, size = packets[96]
    content[start + 20 : start + size] = np.random.default_rng(0).bytes(size - 20)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    assert [number_of(frame) for frame in read_frames(damaged, [3, 80])] == [3, 80]
    with pytest.raises(VideoError, match=r"damaged: frame|cannot be decoded"):
        read_frames(damaged, [3, 118])
    with pytest.raises(VideoError, match=r"damaged: frame|cannot be decoded"):
        read_clip(damaged, Wanted(lambda count: [3]), verify=True)
    part = read_clip(damaged, Wanted(lambda count: [0, count - 1]), end_seconds=2.0, verify=True)  # 25 frames a second
    assert [number_of(frame) for frame in part.frames] == [0, 49]


def test_what_decoding_contradicts_is_drawn_again(path, monkeypatch):
    """A file whose packets promise other frames than there are: all is counted, and the choice made afresh."""
    read, heard = reader._read, []

    def mistrust(path, index, *arguments):
        if not index.is_counted:
            raise reader.WrongIndexError
        return read(path, index, *arguments)

    monkeypatch.setattr(reader, "_read", mistrust)
    clip = read_clip(path, Wanted(lambda count: heard.append(count) or [count - 1, 0]))
    assert heard == [120, 120]
    assert clip.index.is_counted
    assert [number_of(frame) for frame in clip.frames] == [119, 0]


def test_counting_and_packets_agree(path):
    by_packets, counted = frame_index(path), counted_index(path)
    assert not by_packets.is_counted
    assert np.allclose(by_packets.times_seconds, counted.times_seconds, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wanted", [[0], [45], [3, 31, 100]])
def test_pixels_equal_the_plain_way(path, wanted):
    with av.open(path) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, number in zip(read_frames(path, wanted), wanted, strict=True):
        assert (frame.permute(1, 2, 0).numpy() == plain[number]).all()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("h264.mp4", dict(options={"bf": "3", "g": "25", "x264-params": "b-pyramid=normal:b-adapt=0"})),
        ("h264.mkv", dict(options={"bf": "3", "g": "25"})),
        ("h264.ts", dict(options={"bf": "2", "g": "25"})),
        ("hevc.mp4", dict(codec="libx265", options={"x265-params": "log-level=none:keyint=25:bframes=3"})),
        ("vp9.webm", dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "25"})),
        ("mpeg4.mp4", dict(codec="mpeg4", options={"bf": "2", "g": "25", "qscale": "2"})),
    ],
)
def test_ordinary_files_are_never_counted(tmp_path, monkeypatch, name, how):
    """Counting is right, too, and would hide that seeking had stopped to work."""
    path = write_video(tmp_path / name, numbered_frames(60), **how)

    def refuse(path):
        raise AssertionError(f"{path} was counted")

    monkeypatch.setattr(reader, "counted_index", refuse)
    for number in range(0, 60, 3):
        assert number_of(read_frames(path, [number])[0]) == number
    assert len(read_clip(path, Wanted(lambda count: range(0, count, 7)), verify=True).frames) == 9


def test_packets_tell_how_many_pictures_they_show():
    shown, hidden, again = b"\x82\x00abc", b"\x80\x00abcdef", b"\x88"  # VP9: shown, not shown, an earlier one shown

    def superframe(*frames):
        marker = bytes([0xC0 | 1 << 3 | len(frames) - 1])
        return b"".join(frames) + marker + b"".join(len(f).to_bytes(2, "little") for f in frames) + marker

    for packet, number in (
        (shown, 1),
        (hidden, 0),
        (again, 1),
        (superframe(hidden, shown), 1),
        (superframe(hidden, hidden), 0),
        (superframe(shown, shown), None),
    ):
        assert num_shown("vp9", packet) == number
    assert num_shown("vp8", b"\x10") == 1
    assert num_shown("vp8", b"\x00") == 0
    picture = b"\0\0\1\xb6" + bytes(range(20))
    assert num_shown("mpeg4", b"\0\0\1\xb3head" + picture) == 1
    for packet in (picture + picture, picture[:8], b""):
        assert num_shown("mpeg4", packet) is None
    with pytest.raises(ValueError, match="need not be read"):
        num_shown("h264", b"anything")
