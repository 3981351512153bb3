"""The video with bars: its frames at their own times, upright, and its sound."""

from fractions import Fraction

import av
import numpy as np
import pytest

from evl.inference.bars import Bars
from evl.inference.overlay import write_overlay
from evl.inference.segments import Segment
from evl.inference.timeline import Gap, Timeline
from evl.video.decode.index import frame_index, probe
from evl.video.decode.reader import read_frames
from tests.boxes import rewrite_boxes
from tests.helpers import write_video

NAMES = ("run", "a very long name of a class that needs more room than there is", "\x1b[31m日本")


def made(path, start=0.0, end=None, **fields):
    index = frame_index(str(path))
    end = end or float(index.times_seconds[-1] - index.times_seconds[0]) + 0.04
    times = np.linspace(start + 0.1, end - 0.1, 9)
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 9)
    segments = (Segment("run", start, (start + end) / 2, 0.8),)
    return Timeline(str(path), times, scores, np.zeros((9, 2), int), NAMES, segments, start_seconds=start,
                    end_seconds=end, **fields)  # fmt: skip


def with_sound(path, frames, codec="aac", late=0, times=None):
    """A video whose sound is a tone that starts ``late`` ms after the first frame."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = file.add_stream(codec, rate=48000)
        sound.layout = "mono"
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 1000), 40 * number if times is None else times[number]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        tone = np.sin(np.arange(48000) * 0.1).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 48 * late, Fraction(1, 48000)
        resampler = av.AudioResampler(sound.format, "mono", 48000, sound.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(sound.encode(part))
        file.mux(sound.encode())
    return path


def sound_of(path):
    """(codec, time of the first sound in seconds from the first frame, seconds of sound)."""
    with av.open(str(path)) as file:
        first = float(next(file.decode(video=0)).time)
    with av.open(str(path)) as file:
        audio = file.streams.audio[0]
        frames = [frame for frame in file.decode(audio)]
        seconds = sum(frame.samples for frame in frames) / audio.codec_context.sample_rate
        return audio.codec_context.name, float(frames[0].time) - first, seconds


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (30, 96, 160, 3), dtype=np.uint8)


def test_frames_keep_their_times_and_sound(noise, tmp_path):
    times = (np.cumsum(np.random.default_rng(1).choice([20, 40, 90], 30)) + 3000).tolist()
    path = with_sound(tmp_path / "a.mkv", noise, times=times)
    write_overlay(tmp_path / "b.mp4", made(path))
    was, now = probe(path), probe(tmp_path / "b.mp4")
    np.testing.assert_allclose(now.times_seconds, np.array(was.times_seconds) - was.times_seconds[0], atol=1e-4)
    assert (now.width, now.height, now.codec) == (160, 96, "h264")


@pytest.mark.parametrize(("codec", "kind", "wanted"), [("aac", "mp4", "aac"), ("pcm_s16le", "mkv", "aac")])
def test_sound_is_copied_or_encoded(noise, tmp_path, codec, kind, wanted):
    path = with_sound(tmp_path / f"a.{kind}", noise, codec, late=200)
    write_overlay(tmp_path / "b.mp4", made(path))
    before, after = sound_of(path), sound_of(tmp_path / "b.mp4")
    assert after[0] == wanted
    assert after[1] == pytest.approx(before[1], abs=0.03)
    assert after[2] == pytest.approx(before[2], abs=0.08)


def test_turned_files_are_upright(noise, tmp_path):
    from tests.makers import turned

    path = write_video(tmp_path / "a.mp4", noise)
    path.write_bytes(rewrite_boxes(path.read_bytes(), turned(90)))
    upright = read_frames(path, [3])[0]
    write_overlay(tmp_path / "b.mp4", made(path))
    painted = read_frames(tmp_path / "b.mp4", [3])[0]
    assert painted.shape == upright.shape == (3, 160, 96)
    top = slice(0, 40)  # without bars
    assert (painted[:, top].float() - upright[:, top].float()).abs().mean() < 25


def test_a_part_of_a_file(noise, tmp_path):
    path = with_sound(tmp_path / "a.mp4", noise)
    write_overlay(tmp_path / "b.mp4", made(path, 0.4, 0.8))
    assert probe(tmp_path / "b.mp4").num_frames == 10
    assert sound_of(tmp_path / "b.mp4")[2] == pytest.approx(0.4, abs=0.05)


def test_bars_are_painted_where_there_are_scores(noise, tmp_path):
    path = write_video(tmp_path / "a.mp4", noise)
    line = made(path, damaged=(Gap(0.5, 0.7, "broken"),))
    bars, gray = Bars(line, 160, 96), np.full((96, 160, 3), 128, np.uint8)
    first, later, damaged = gray.copy(), gray.copy(), gray.copy()
    bars.paint(first, 0.1)
    bars.paint(later, 1.1)
    bars.paint(damaged, 0.6)
    assert (first[:30] == 128).all()
    assert (first[70:] != 128).any()
    assert (first != later).any()
    assert (damaged == 128).all()
    tiny = np.zeros((16, 16, 3), np.uint8)
    Bars(line, 16, 16).paint(tiny, 0.1)  # fits, or is cut off
