"""A day by a fake clock: memory does not grow, and segments are where they should be."""

import sys

import numpy as np
import pytest

from evl.inference.segments import SegmentRules
from evl.video.live_windows import LiveWindows
from evl.video.plans import Spacing
from evl.video.windows import WindowPlan
from evl.watching.room import Opened, Shown
from evl.watching.watched import WatchedSource

NAMES = ("dark", "bright")
PERIOD = 600.0  # seconds: dark for five minutes, then bright
WRAP = 2**33 / 90000


class FreeLive:
    """A ``Live`` without a model: a window is as bright as the time of its middle says."""

    def __init__(self):
        self.windows = LiveWindows(WindowPlan(Spacing(4, frames_per_second=0.1)))
        self.num_encoded = 0

    def choose(self, rgb, time_seconds, left_out=0):
        return self.windows.push(time_seconds, time_seconds, left_out)

    @property
    def elapsed_seconds(self):
        return max(0, self.windows.clock.now) / 1e6

    @property
    def frame_seconds(self):
        return self.windows.clock.distance / 1e6


def a_day(hours, rate, *, break_every=None):
    """(ends of segments, source, blocks of memory after an hour and at the end) of so many hours, a wrap amid."""
    rules = SegmentRules(on=0.6, off=0.4, smooth=3, min_seconds=30)
    source = WatchedSource("camera", FreeLive, NAMES, rules, scores=False)
    source.open(Opened("camera", 0.0), 0.0)
    start, ends, sizes = WRAP - hours * 1800, [], []
    for number in range(int(hours * 3600 * rate)):
        now = number / rate
        stamp = (start + now) % WRAP
        if number in (int(3600 * rate), int(hours * 3600 * rate) - 1):
            sizes.append(sys.getallocatedblocks())
        if break_every and number and number % int(break_every * rate) == 0:
            ends += source.break_off(now)
            ends += source.open(Opened("camera", now, resumes=True), now)
        windows = source.choose(Shown(stamp, None, now))
        bright = [float((source.offset + one.middle / 1e6) % PERIOD >= PERIOD / 2) for one in windows]
        ends += source.score(windows, [np.array([1 - one, one]) for one in bright], now, 0.0)
    ends = [event for event in [*ends, *source.finish(now)] if event.kind == "end"]
    return ends, source, sizes


def check(ends, source, sizes, hours):
    assert len(ends) == hours * 12
    assert [event.label for event in ends] == ["dark", "bright"] * (hours * 6)
    seconds = [event.seconds for event in ends]
    np.testing.assert_allclose(seconds, PERIOD / 2 * np.arange(1, len(ends) + 1), atol=11)
    np.testing.assert_allclose([event.time for event in ends], seconds, atol=40)
    # what grows is the list of events in this test
    assert sizes[1] - sizes[0] < 25 * len(ends)
    assert len(source.live.windows.open if source.live else ()) <= 4
    assert len(source.tracker._classes) == 0


def test_24_hours_of_slow_frames():
    ends, source, sizes = a_day(24, 0.2)
    check(ends, source, sizes, 24)


def test_with_breaks():
    ends, source, sizes = a_day(6, 0.2, break_every=3000)
    assert len(source.tracker._classes) == 0
    assert sizes[1] - sizes[0] < 25 * len(ends)
    seconds = [event.seconds for event in ends]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(6 * 3600, abs=11)


@pytest.mark.slow
def test_24_hours_of_a_camera():
    """432,000 frames."""
    ends, source, sizes = a_day(24, 5)
    check(ends, source, sizes, 24)
