"""Copies: the number drawn into each picture tells whether frame k of the copy is frame k of the source."""

import resource
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

from evl.collections.copy_video import CopySettings, _ticks, copy_size, prepare_video
from evl.errors import ConfigError, SaveError, VideoError
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from tests.helpers import frame_range, number_of, numbered_frames, write_audio, write_video

SPARSE = sorted(40 * i + (i % 3) * 37 for i in range(50))  # irregular times in ms
FILES = {
    "b-frames.mp4": dict(options={"bf": "3", "g": "50", "x264-params": "b-adapt=0:open-gop=1"}),
    "variable.mp4": dict(times=SPARSE, options={"bf": "2"}),
    "variable.mkv": dict(times=[5000 + time for time in SPARSE], options={"bf": "2"}),  # starts late
    "mpeg4-b.avi": dict(codec="mpeg4", options={"bf": "2", "qscale": "2"}),
    "h264.avi": dict(options={"bf": "2"}),  # labels its frames in another order
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1"}),
    "ntsc.mp4": dict(rate=Fraction(30000, 1001)),
    "stream.ts": dict(options={"bf": "2"}),
}
SMALL = CopySettings(short_side=48)


def from_first(path):
    times = np.array(probe(path).times_seconds)
    return times - times[0]


def packets(path):
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        return [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (120, 80), (50, 130)])
def test_every_frame_and_time_is_where_it_was(tmp_path, name, height, width):
    source = write_video(tmp_path / name, numbered_frames(50, height, width), **FILES[name])
    copy = prepare_video(source, tmp_path / "out" / "copy.mp4", SMALL)
    path = tmp_path / "out" / "copy.mp4"
    info = probe(path)
    assert (info.num_frames, info.codec, min(info.width, info.height)) == (50, "h264", 48)
    assert (copy.num_frames, copy.width, copy.height) == (50, info.width, info.height)
    assert abs(info.width / info.height - width / height) < 0.05
    assert [number_of(frame) for frame in read_frames(path, range(50))] == list(range(50))
    assert info.times_seconds[0] == 0
    assert np.abs(from_first(path) - from_first(source)).max() < 1e-6
    if "times" in FILES[name]:
        assert np.allclose(from_first(path) * 1000, SPARSE, atol=1e-3)
    for start, end in ((None, 0.7), (0.4, 1.0), (0.52, None)):
        assert frame_range(path, start, end) == frame_range(source, start, end)
    assert list((tmp_path / "out").iterdir()) == [path]


@pytest.mark.parametrize("gop", [1, 4])
def test_key_frames_order_and_options(tmp_path, gop):
    source = write_video(tmp_path / "a.mp4", numbered_frames(20), options={"bf": "2", "g": "3"})
    path = tmp_path / "copy.mp4"
    prepare_video(source, path, CopySettings(gop=gop))
    assert [key for _, key in packets(path)] == [i % gop == 0 for i in range(20)]
    times = [time for time, _ in packets(path)]
    assert times == sorted(times)  # no B-frames: packets come as they are shown
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"cabac=0 " in content
    assert b"deblock=0:" in content
    assert [number_of(frame) for frame in read_frames(path, range(20))] == list(range(20))


@pytest.mark.parametrize("name", ["variable.mp4", "vp9.webm"])
@pytest.mark.parametrize("every", [2, 3])
def test_thinning_keeps_times(tmp_path, name, every):
    source = write_video(tmp_path / name, numbered_frames(50), **FILES[name])
    path = tmp_path / "copy.mp4"
    copy = prepare_video(source, path, CopySettings(every=every))
    assert copy.num_frames == len(range(0, 50, every))
    assert [number_of(frame) for frame in read_frames(path, range(copy.num_frames))] == list(range(0, 50, every))
    assert np.abs(from_first(path) - from_first(source)[::every]).max() < 1e-6


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_is_applied_and_gone(tmp_path, turns):
    """Quarter turns written into the header, as phones do."""
    plain = write_video(tmp_path / "plain.mp4", numbered_frames(5, 64, 96))
    one = 65536
    matrix = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[turns]
    content = plain.read_bytes()
    zero, whole = bytes(4), (1 << 30).to_bytes(4, "big")

    def layout(a, b, c, d):
        parts = [number.to_bytes(4, "big", signed=True) for number in (a, b, c, d)]
        return parts[0] + parts[1] + zero + parts[2] + parts[3] + zero + bytes(8) + whole

    at = content.index(layout(one, 0, 0, one), content.index(b"tkhd"))
    rotated = tmp_path / "rotated.mp4"
    rotated.write_bytes(content[:at] + layout(*matrix) + content[at + 36 :])
    assert probe(rotated).rotation_degrees % 360 == 90 * (4 - turns)
    path = tmp_path / "copy.mp4"
    prepare_video(rotated, path, CopySettings(quality=10))
    info = probe(path)
    assert info.rotation_degrees == 0
    assert (info.height, info.width) == ((96, 64) if turns % 2 else (64, 96))
    wanted, got = read_frames(rotated, [3]).float(), read_frames(path, [3]).float()
    assert (wanted - got).abs().mean() < 3
    assert (wanted.flip(-1) - got).abs().mean() > 20  # the comparison can tell


def test_one_frame_and_odd_sizes(tmp_path):
    source = write_video(tmp_path / "odd.mp4", numbered_frames(1, 63, 97), pixel_format="yuv444p")
    copy = prepare_video(source, tmp_path / "copy.mp4")
    assert (copy.num_frames, copy.width, copy.height) == (1, 96, 62)
    assert read_frames(tmp_path / "copy.mp4", [0]).shape == (1, 3, 62, 96)


def test_sizes():
    assert copy_size(1920, 1080, 256) == (456, 256)
    assert copy_size(1080, 1920, 256) == (256, 456)
    assert copy_size(340, 256, 256) == (340, 256)
    assert copy_size(176, 144, 256) == (176, 144)  # never enlarged
    assert copy_size(177, 145, 256) == (176, 144)
    assert copy_size(5000, 1, 256) == (5000, 2)


def flat_colours(count=3):
    """Large patches of colour, so that coarser chroma costs nothing."""
    patches = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3))
    return np.repeat(np.kron(patches, np.ones((1, 32, 32, 1))).astype(np.uint8), count, 0)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "matrix"),
    [
        ("a.mp4", "libx264", "yuv420p", None),
        ("a.mp4", "libx264", "yuv420p", 1),
        ("a.mp4", "libx264", "yuvj420p", None),
        ("a.mp4", "libx264", "yuv422p10le", None),
        ("a.mp4", "libx264rgb", "rgb24", None),
        ("a.avi", "mjpeg", "yuvj422p", None),
        ("a.mkv", "ffv1", "bgr0", None),
        ("a.mkv", "ffv1", "gray", None),
        ("a.gif", "gif", "rgb8", None),
    ],
)
def test_colours_stay(tmp_path, name, codec, pixel_format, matrix):
    source = tmp_path / name
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "4"} if "x264" in codec else {})
        stream.height, stream.width, stream.pix_fmt = 64, 96, pixel_format
        if matrix:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        for picture in flat_colours():
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format, dst_colorspace=matrix)))
        container.mux(stream.encode())
    prepare_video(source, tmp_path / "copy.mp4", CopySettings(quality=4))
    wanted, got = read_frames(source, [1]).float(), read_frames(tmp_path / "copy.mp4", [1]).float()

    def patches(frames):  # mean colour away from edges: a GIF is dithered, chroma is coarse
        return frames.view(3, 2, 32, 3, 32)[:, :, 6:-6, :, 6:-6].mean((2, 4))

    assert (patches(wanted) - patches(got)).abs().max() < 5
    with av.open(str(source)) as before, av.open(str(tmp_path / "copy.mp4")) as after:
        before, after = next(before.decode(video=0)), next(after.decode(video=0))
        assert after.format.name in ("yuv420p", "yuvj420p")
        if not before.format.is_rgb:
            same = {5: 6}  # two names of one matrix
            assert same.get(after.colorspace, after.colorspace) == same.get(before.colorspace, before.colorspace)
            assert after.color_range == before.color_range


def test_pixels_that_are_not_square(tmp_path):
    source = tmp_path / "wide.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24")))
        container.mux(stream.encode())
    prepare_video(source, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_times_in_integers():
    assert _ticks([2.0, 2.04, 2.1], Fraction(1, 1000)) == (Fraction(1, 1000), [0, 40, 100])
    assert _ticks([0.0, 1001 / 30000], Fraction(1001, 30000)) == (Fraction(1001, 30000), [0, 1])
    base, ticks = _ticks([0.0, 0.04, 0.04, 0.08], Fraction(1, 25))  # two frames at one moment
    assert ticks == sorted(set(ticks))
    assert [float(tick * base) for tick in ticks] == pytest.approx([0, 0.04, 0.04, 0.08], abs=2e-5)
    base, ticks = _ticks([0.0, 0.5], Fraction(1, 10**9))
    assert (base, ticks) == (Fraction(1, 10**6), [0, 500_000])


def test_damage_writes_nothing(tmp_path):
    good = write_video(tmp_path / "good.mp4", numbered_frames(20), container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-100])
    write_audio(tmp_path / "sound.m4a")
    for name, reason in (("cut.mp4", "truncated"), ("sound.m4a", "only audio"), ("none.mp4", "no such file")):
        with pytest.raises(VideoError, match=reason):
            prepare_video(tmp_path / name, tmp_path / "out" / "copy.mp4")
    assert list(tmp_path.glob("out/*")) == []


@contextmanager
def files_at_most(num_bytes):
    """No file of this process may grow larger: what a full disk looks like."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("num_bytes", [0, 500, 5000])
def test_full_disk_leaves_what_was_there(tmp_path, num_bytes):
    noise = np.random.default_rng(0).integers(0, 256, (10, 64, 96, 3)).astype(np.uint8)
    source = write_video(tmp_path / "a.mp4", noise)
    path = tmp_path / "out" / "copy.mp4"
    prepare_video(source, path)
    before = path.read_bytes()
    assert len(before) > 5000
    with files_at_most(num_bytes), pytest.raises(SaveError, match=r"copy\.mp4 could not be written"):
        prepare_video(source, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"short_side": 255}, "short_side 255: expected an even number"),
        ({"gop": 0}, "gop 0"),
        ({"every": 0}, "every 0"),
        ({"quality": 0}, "quality 0"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ConfigError, match=message):
        CopySettings(**wrong)
