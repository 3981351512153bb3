"""Frames by number: the number is drawn into each picture, so the test needs no other reader to compare with."""

import numpy as np
import pytest
import torch

from evl.errors import VideoError
from evl.video.decode.container import decode, open_video
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from tests.helpers import frame_range, number_of, numbered_frames, write_audio, write_video

SPARSE = [40 * i + (i % 3) * 37 for i in range(50)]  # irregular times in ms
FILES = {
    "b-frames.mp4": dict(options={"bf": "3", "g": "50", "x264-params": "b-adapt=0:open-gop=1"}),
    "all-key.mp4": dict(options={"g": "1"}),
    "variable.mp4": dict(times=sorted(SPARSE), options={"bf": "2"}),
    "variable.mkv": dict(times=sorted(SPARSE), options={"bf": "2"}),
    "mpeg4-b.avi": dict(codec="mpeg4", options={"bf": "2", "qscale": "2"}),
    "stream.ts": dict(options={"bf": "2"}),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1"}),
    "vp8.webm": dict(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"}),
    "h264.avi": dict(),
    "hevc.mp4": dict(codec="libx265", options={"x265-params": "log-level=none:bframes=3"}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (50, 130)])
def test_every_frame_is_where_it_belongs(tmp_path, name, height, width):
    path = write_video(tmp_path / name, numbered_frames(50, height, width), **FILES[name])
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == (50, height, width)
    assert list(info.times_seconds) == sorted(info.times_seconds)
    if "times" in FILES[name]:
        shown = np.diff(info.times_seconds)
        assert np.allclose(shown, np.diff(FILES[name]["times"]) / 1000, atol=2e-3)
    frames = read_frames(path, range(50))
    assert frames.dtype == torch.uint8
    assert frames.shape == (50, 3, height, width)
    assert [number_of(frame) for frame in frames] == list(range(50))
    some = read_frames(path, [49, 3, 3, 17, 0])
    assert torch.equal(some, frames[[49, 3, 3, 17, 0]])


def test_odd_sizes_and_one_frame(tmp_path):
    path = write_video(tmp_path / "odd.mp4", numbered_frames(1, 63, 97), pixel_format="yuv444p")
    assert read_frames(path, [0, 0]).shape == (2, 3, 63, 97)
    assert probe(path).num_frames == 1
    assert probe(path).frames_per_second == 0


def test_rotation_is_applied(tmp_path):
    frames = numbered_frames(5, 64, 96)
    path = write_video(tmp_path / "plain.mp4", frames)
    upright = read_frames(path, [3])
    rotated = tmp_path / "rotated.mp4"
    content = path.read_bytes()
    at = content.index(b"tkhd")
    identity = (
        (65536).to_bytes(4, "big") + bytes(12) + (65536).to_bytes(4, "big") + bytes(12) + (1 << 30).to_bytes(4, "big")
    )
    assert content[at:].index(identity) < 100
    a, minus = (65536).to_bytes(4, "big"), (-65536).to_bytes(4, "big", signed=True)
    quarter = bytes(4) + a + bytes(4) + minus + bytes(16) + (1 << 30).to_bytes(4, "big")  # 90° clockwise
    rotated.write_bytes(content[:at] + content[at:].replace(identity, quarter, 1))
    info = probe(rotated)
    assert (info.height, info.width) == (96, 64)
    assert torch.equal(read_frames(rotated, [3])[0], upright[0].rot90(-1, (1, 2)))


def test_wanting_too_much(tmp_path):
    path = write_video(tmp_path / "short.mp4", numbered_frames(5))
    with pytest.raises(VideoError, match="has 5 frames, but frame 5 was wanted"):
        read_frames(path, [2, 5, 7])
    with pytest.raises(ValueError, match="negative"):
        read_frames(path, [-1])


def test_times_cut_a_file(tmp_path):
    path = write_video(tmp_path / "long.mp4", numbered_frames(50), rate=10)
    assert frame_range(path, None, None) == (0, 50)
    assert frame_range(path, 1.0, 2.0) == (10, 10)
    assert frame_range(path, 4.5, None) == (45, 5)
    assert frame_range(path, 3 * 0.1, 7 * 0.1) == (3, 4)  # 0.30000000000000004 and 0.7000000000000001
    with pytest.raises(VideoError, match="no frame between 7 and 9 s"):
        frame_range(path, 7, 9)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mpg", "a.flv", "a.avi"])
def test_times_cut_every_container_alike(tmp_path, name):
    codec = {"a.mpg": "mpeg2video", "a.flv": "flv"}.get(name, "libx264")
    path = write_video(tmp_path / name, numbered_frames(40), codec=codec)
    assert frame_range(path, 0.4, 0.8) == (10, 10)


def damaged(folder):
    whole = write_video(
        folder / "whole.mp4", numbered_frames(60), options={"g": "10"}, container_options={"movflags": "faststart"}
    )
    content = whole.read_bytes()
    flipped = bytearray(content)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) * 2 // 3, len(content) - 200, 60):
        flipped[place] ^= 0xFF
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is not a video\n" * 100,
        "cut-index-behind.mp4": write_video(folder / "w2.mp4", numbered_frames(60)).read_bytes()[:3000],
        "cut-index-in-front.mp4": content[: len(content) * 3 // 4],
        "flipped.mp4": bytes(flipped),
        "playlist.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_audio(folder / "audio.m4a")
    (folder / "audio.m4a").rename(folder / "audio.mp4")
    from PIL import Image

    Image.fromarray(numbered_frames(1)[0]).save(folder / "picture.mp4", format="png")
    # a stream without a frame: the container is whole, its only track is empty
    import av

    with av.open(str(folder / "no-frame.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return {
        "missing.mp4": "no such file",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be decoded",
        "cut-index-behind.mp4": "is truncated",
        "cut-index-in-front.mp4": "is truncated",
        "flipped.mp4": "damaged|cannot be decoded",
        "playlist.mp4": "cannot be decoded",
        "picture.mp4": "cannot be decoded",
        "audio.mp4": "no video stream .only audio",
        "no-frame.mkv": "no frame of it|no video|cannot be decoded",
        ".": "is a folder",
    }


def test_damage_has_a_reason(tmp_path):
    import pickle

    for name, reason in damaged(tmp_path).items():
        with pytest.raises(VideoError, match=reason) as caught:
            probe(tmp_path / name)
        assert "\n" not in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))  # workers send it home
        assert str(again) == str(caught.value)
    assert probe(tmp_path / "whole.mp4").num_frames == 60


def test_names_cannot_reach_elsewhere(tmp_path):
    target = write_video(tmp_path / "target.mp4", numbered_frames(3))
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/{target.name}\n#EXT-X-ENDLIST\n")
    for name in (f"concat:{target}", f"file:{target}", str(playlist)):
        with pytest.raises(VideoError):
            probe(name)


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("id3.mp4", b"TAGtitle" + bytes(120)),
        ("boundary.mp4", b"\r\n--boundary-of-an-upload--\r\n"),
        ("text.mkv", b"some text that is no element " * 3),
        ("zeros.mkv", bytes(500)),
        ("zeros.ts", bytes(100)),
        ("zeros.avi", bytes(1000)),
        ("zeros.flv", bytes(77)),
    ],
)
def test_what_lies_behind_a_file_is_no_damage(tmp_path, name, tail):
    codec = "flv" if name.endswith("flv") else "libx264"
    path = write_video(tmp_path / name, numbered_frames(20), codec=codec)
    before = read_frames(path, range(20))
    with open(path, "ab") as file:
        file.write(tail)
    assert probe(path).num_frames == 20
    assert torch.equal(read_frames(path, range(20)), before)


def test_streams_that_appear_in_the_midst_of_a_file_stop_nothing(tmp_path):
    """PyAV may raise IndexError there (as the memory behind its table has it): nothing is lost, nothing comes twice."""
    path = write_video(tmp_path / "a.ts", numbered_frames(30), options={"bf": "2"})

    class Container:
        """Fails after the fourth packet, and once more after the stream's last one."""

        def __init__(self, real):
            self.real, self.failures = real, 0

        def demux(self, stream):
            for place, packet in enumerate(self.real.demux(stream)):
                yield packet
                if (place == 3 and self.failures == 0) or packet.size == 0:
                    self.failures += 1
                    raise IndexError("list index out of range")

    with open_video(str(path)) as (container, stream):
        frames = [frame.to_ndarray(format="rgb24") for frame in decode(Container(container), stream)]
    assert [number_of(torch.from_numpy(frame).permute(2, 0, 1)) for frame in frames] == list(range(30))
