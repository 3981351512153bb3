"""Which frames windows have: against plain twins, and frame by frame against whole files."""

import numpy as np
import pytest

from evl.errors import ConfigError
from evl.video.live_windows import LiveWindows
from evl.video.plans import Spacing
from evl.video.sampling import TimedSampling, clip_indices, microseconds, segment_indices
from evl.video.windows import WindowPlan

DENSE, TIMED = Spacing(4, 3), Spacing(4, None, 5.0)


def at_rate(count, rate):
    return microseconds(np.arange(count) / rate)


def plain_dense(count, num_frames, stride, every):
    """Starts until the last sampled frame is the video's last, or past it."""
    found, start = [], 0
    while start <= count - 1:
        found.append([min(start + t * stride, count - 1) for t in range(num_frames)])
        if start + (num_frames - 1) * stride >= count - 1:
            break
        start += every
    return found


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 12, 50])
@pytest.mark.parametrize("every", [None, 1, 2, 3, 5, 20])
def test_dense_windows(count, every):
    windows = WindowPlan(DENSE, every_frames=every).windows(at_rate(count, 25))
    assert windows.frames.tolist() == plain_dense(count, 4, 3, every or 3)
    assert (np.diff(windows.times) > 0).all()


def test_a_video_of_one_clip_has_the_clip_of_evaluation():
    for count in (1, 7, 10):
        windows = WindowPlan(DENSE).windows(at_rate(count, 25))
        assert windows.frames.tolist() == clip_indices(count, num_frames=4, stride=3, num_clips=1)


@pytest.mark.parametrize("rate", [2.0, 5.0, 12.5, 25.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("every", [None, 0.5, 1.3])
def test_windows_by_time(rate, every):
    times, timed = at_rate(70, rate), TimedSampling(4, 5.0)
    windows = WindowPlan(TIMED, every_seconds=every).windows(times)
    starts = [round(k * (every or 0.2) * 1e6) for k in range(len(windows.frames))]
    assert windows.frames.tolist() == [timed.indices(times, start) for start in starts]
    assert all(start < timed.slack(times) for start in starts[:-1])  # and one more reaches the end
    assert windows.frames[-1, -1] == 69 or starts[-1] + round((every or 0.2) * 1e6) > times[-1]
    assert (np.diff(windows.times) > 0).all()


def test_seconds_with_a_stride_start_at_the_frames_shown_then():
    times = at_rate(100, 25)
    windows = WindowPlan(DENSE, every_seconds=0.5).windows(times)
    assert windows.frames[:4, 0].tolist() == [0, 12, 25, 37]  # 12.5: the earlier of two
    assert windows.frames[-1].tolist() == [87, 90, 93, 96] or windows.frames[-1, -1] == 99


def test_segments():
    plan = WindowPlan(Spacing(4, sampling="segment"), window_seconds=2)
    short = plan.windows(at_rate(40, 25))
    assert short.frames.tolist() == segment_indices(40, num_frames=4)
    long = plan.windows(at_rate(200, 25))
    assert long.frames[0].tolist() == [0, 12, 25, 37]  # T / window_seconds = 2 a second
    assert long.frames[1].tolist() == [12, 25, 37, 50]
    assert long.frames[-1, -1] == 199


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (dict(every_seconds=1, every_frames=2), "not both"),
        (dict(every_seconds=0), "above 0"),
        (dict(every_frames=0), "at least 1"),
        (dict(window_seconds=2), "each segment"),
    ],
)
def test_wrong_steps_are_refused(how, word):
    with pytest.raises(ConfigError, match=word):
        WindowPlan(DENSE, **how)


def live_frames(plan, times_seconds):
    live = LiveWindows(plan)
    windows = [one for number, time in enumerate(times_seconds) for one in live.push(time, number)]
    early = len(windows)
    windows += live.finish()
    assert len(windows) - early <= 1
    return [one.frames for one in windows], [one.time_seconds for one in windows]


@pytest.mark.parametrize("spacing", [DENSE, TIMED, Spacing(1, 4), Spacing(3, None, 7.0)])
@pytest.mark.parametrize("rate", [3.0, 10.0, 25.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("count", [1, 2, 10, 61, 100])
@pytest.mark.parametrize("every", [None, 2])
def test_frames_one_by_one_give_the_windows_of_the_file(spacing, rate, count, every):
    by_time = spacing.frames_per_second is not None
    step = {} if every is None else {"every_seconds": 0.3 * every} if by_time else {"every_frames": every}
    plan, times = WindowPlan(spacing, **step), np.arange(count) / rate
    wanted = plan.windows(microseconds(times))
    frames, middles = live_frames(plan, times + 1000)
    assert frames == wanted.frames.tolist()
    np.testing.assert_allclose(middles, wanted.times / 1e6 + 1000, atol=2e-6)


def test_a_pause_repeats_the_picture_that_was_shown():
    times = [*np.arange(20) / 10, *(2.0 + 3 + np.arange(20) / 10)]
    wanted = WindowPlan(TIMED).windows(microseconds(times))
    assert live_frames(WindowPlan(TIMED), times)[0] == wanted.frames.tolist()


@pytest.mark.parametrize("jump", [-3600.0, -5.0, 50.0, 95443.7, -95443.7])
def test_a_clock_that_jumps_is_gone_on_with(jump):
    times = np.arange(60) / 10
    changed = times + np.where(np.arange(60) >= 31, jump, 0)
    assert live_frames(WindowPlan(TIMED), changed)[0] == live_frames(WindowPlan(TIMED), times)[0]


def test_a_clock_that_stands_or_goes_back_a_little():
    times = np.arange(60) / 10
    times[30] = times[29]  # a time that repeats
    times[40] = times[38]
    frames = live_frames(WindowPlan(TIMED), times)[0]
    assert len(frames) == len(live_frames(WindowPlan(TIMED), np.arange(60) / 10)[0])
    assert all(one == sorted(one) for one in frames)
    with pytest.raises(ConfigError, match="expected the time"):
        LiveWindows(WindowPlan(TIMED)).push(float("nan"), 0)


def test_nothing_grows_in_a_day():
    """24 hours at two frames a second, with the clock of a transport stream, which wraps after 26.5 hours."""
    live, wrap, count = LiveWindows(WindowPlan(Spacing(4, None, 1.0))), 2**33 / 90000, 0
    for second in range(0, 2 * 24 * 3600):
        count += len(live.push((20 * 3600 + second / 2) % wrap, second))
        assert len(live.open) <= 5
    assert count == 24 * 3600 - 3
    assert len(live.clock._distances) <= 33
