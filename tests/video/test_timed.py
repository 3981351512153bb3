"""Sampling by time: against a plain twin, against strides at constant rates, and against moments of uneven ones."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from evl.video.sampling import TimedSampling, clip_indices, microseconds


def constant(count, rate):
    """Times of ``count`` frames at ``rate`` a second."""
    return microseconds([i / rate for i in range(count)])


def shown(times, moment):
    """The plain twin: walks over all frames."""
    distances = sorted(b - a for a, b in pairwise(times.tolist()))
    tolerance = max(0, distances[(len(distances) - 1) // 2] - 3) // 2 if distances else 0
    found = 0
    for number, time in enumerate(times.tolist()):
        if time <= moment + tolerance:
            found = number
    return found


def twin(times, start, num_frames, rate, past_end):
    distances = sorted(b - a for a, b in pairwise(times.tolist()))
    tolerance = max(0, distances[(len(distances) - 1) // 2] - 3) // 2 if distances else 0
    clip = []
    for t in range(num_frames):
        moment = start + round(Fraction(t * 1_000_000) / Fraction(str(rate)))
        if past_end == "last_sampled_frame" and clip and moment > int(times[-1]) + tolerance:
            clip.append(clip[-1])
        else:
            clip.append(shown(times, moment))
    return clip


def test_as_the_plain_twin_on_uneven_times():
    generator = np.random.default_rng(3)
    for _ in range(300):
        count = int(generator.integers(1, 80))
        distances = generator.choice([0, 1, 16_683, 33_367, 40_000, 41_000, 900_000], count)
        times = np.concatenate([[0], np.cumsum(distances)])[:count].astype(np.int64)
        rate = float(generator.choice([0.3, 2, 7.5, 10, 29.97, 240]))
        num_frames = int(generator.integers(1, 12))
        sampling = TimedSampling(num_frames, rate)
        start = int(generator.integers(int(times[-1]) + 1))
        for past_end in ("last_video_frame", "last_sampled_frame"):
            assert sampling.indices(times, start, past_end) == twin(times, start, num_frames, rate, past_end)
        assert 0 <= sampling.random_start(times, generator) <= int(times[-1])


def test_random_starts_reach_every_frame_from_which_a_clip_fits():
    times, sampling, generator = constant(50, 25), TimedSampling(4, 5), np.random.default_rng(0)
    clips = [sampling.indices(times, sampling.random_start(times, generator)) for _ in range(2000)]
    assert {clip[0] for clip in clips} == set(range(35))
    assert all(np.diff(clip).tolist() == [5, 5, 5] for clip in clips)


@pytest.mark.parametrize("rate", [25, 30, 30000 / 1001, 24000 / 1001, 60, 12.5])
@pytest.mark.parametrize("stride", [1, 2, 5, 16])
@pytest.mark.parametrize("count", [1, 7, 100, 301])
def test_at_a_constant_rate_one_clip_is_that_of_the_stride(rate, stride, count):
    sampling = TimedSampling(8, round(rate / stride, 9))
    times = constant(count, rate)
    (start,) = sampling.starts(times, 1)
    assert [sampling.indices(times, start)] == clip_indices(count, num_frames=8, stride=stride, num_clips=1)
    first, last = sampling.starts(times, 2)
    wanted = clip_indices(count, num_frames=8, stride=stride, num_clips=2)
    assert [sampling.indices(times, first), sampling.indices(times, last)] == wanted


def test_the_same_moments_whatever_the_frame_rate():
    sampling = TimedSampling(8, 5)
    moments = {}
    for rate in (15, 25, 30, 60):
        times = constant(10 * rate + 1, rate)  # all of them show ten seconds
        moments[rate] = [
            [times[i] / 1e6 for i in sampling.indices(times, start)] for start in sampling.starts(times, 3)
        ]
        moments[rate, "draws"] = [sampling.random_start(times, np.random.default_rng(seed)) / 1e6 for seed in range(5)]
    for rate in (15, 25, 30):
        assert np.abs(np.array(moments[rate]) - moments[60]).max() <= 1 / rate + 1 / 60
        assert np.abs(np.array(moments[rate, "draws"]) - moments[60, "draws"]).max() <= 0.5 / rate + 0.5 / 60 + 1e-5
    assert len(set(moments[60, "draws"])) == 5
    assert np.diff(moments[60][1]).round(6).tolist() == [0.2] * 7


def test_every_second_frame_changes_no_moment():
    """As ``evl prepare --every 2`` leaves out: nothing has to be divided."""
    times = constant(101, 50)
    sampling = TimedSampling(6, 12.5)
    for start in (0, 160_000, 1_520_000):
        whole, half = sampling.indices(times, start), sampling.indices(times[::2], start)
        assert [2 * i for i in half] == whole


def test_times_that_a_container_rounded_to_milliseconds():
    exact = constant(300, 30000 / 1001)
    rounded = np.rint(exact / 1000).astype(np.int64) * 1000
    sampling = TimedSampling(20, 10)
    for start in range(0, 8_000_000, 333_667):
        assert sampling.indices(rounded, start) == sampling.indices(exact, start)


def test_a_still_picture_is_shown_until_the_next_one():
    times = microseconds([0, 0.04, 0.08, 5.08, 5.12])  # five seconds of the third picture
    assert TimedSampling(6, 1).indices(times, 80_000) == [2, 2, 2, 2, 2, 3]
    assert TimedSampling(3, 25).indices(times, 5_000_000) == [2, 2, 3]


def test_short_videos_and_moments_between_frames():
    times = constant(7, 25)
    options = dict(times=times, start=40_000)
    assert TimedSampling(4, 6.25).indices(**options, past_end="last_sampled_frame") == [1, 5, 5, 5]
    assert TimedSampling(4, 6.25).indices(**options, past_end="last_video_frame") == [1, 5, 6, 6]
    assert TimedSampling(4, 6.25).num_inside(times, 40_000) == 2
    assert TimedSampling(4, 6.25).starts(times, 3) == [0, 0, 0]
    assert TimedSampling(3, 2).indices(constant(1, 25), 0) == [0, 0, 0]
    assert TimedSampling(5, 50).indices(times, 0) == [0, 0, 1, 1, 2]  # more moments than frames: they repeat


def test_frames_with_one_time_show_the_last_of_them():
    times = microseconds([0, 0.04, 0.04, 0.04, 0.08])
    assert TimedSampling(3, 25).indices(times, 0) == [0, 3, 4]


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="frames_per_second is 0"):
        TimedSampling(8, 0)
    with pytest.raises(ValueError, match="num_frames is 0"):
        TimedSampling(0, 5)
    with pytest.raises(ValueError, match="num_clips is 0"):
        TimedSampling(8, 5).starts(constant(10, 25), 0)
    with pytest.raises(ValueError, match="past_end 'loop'"):
        TimedSampling(8, 5).indices(constant(10, 25), 0, "loop")
    with pytest.raises(ValueError, match="no frames"):
        TimedSampling(8, 5).starts(np.empty(0, np.int64), 1)
