"""The time left is said where it can be known, and then it is right."""

import pytest

from evl.runtime.progress import TimeLeft, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def said(total, times, first=0, step=1):
    """The seconds left after each report; ``times``: when each is."""
    clock = Clock()
    left = TimeLeft(total, first, clock)
    found = []
    for number, clock.now in enumerate(times, 1):
        left.report(first + number * step)
        found.append(left.seconds)
    return found


def test_a_slow_start_is_not_extrapolated():
    """The demo's: ten seconds until the first of 1,000, and 40 seconds in all; it said 158 minutes."""
    times = [10 + 0.03 * i for i in range(1000)]
    found = said(1000, times)
    assert found[:100] == [None] * 100
    known = [(seconds, times[-1] - time) for seconds, time in zip(found, times, strict=True) if seconds is not None]
    assert len(known) > 700
    for seconds, truth in known:
        assert seconds == pytest.approx(truth, rel=0.02, abs=0.05)


def test_what_was_read_ahead_is_not_the_speed():
    """Eight at once, then one every ten seconds."""
    found = said(100, [*[5 + 0.01 * i for i in range(8)], *[15 + 10.0 * i for i in range(92)]])
    known = [(place, seconds) for place, seconds in enumerate(found) if seconds is not None]
    assert known[0][0] >= 8
    for place, seconds in known:
        assert seconds == pytest.approx(10 * (99 - place), rel=0.35)


def test_what_was_done_before_does_not_count():
    found = said(1000, [3.0 + i for i in range(20)], first=900)
    assert found[-1] == pytest.approx(80)


def test_many_at_a_time_and_many_reports():
    found = said(10_000_000, [0.01 * i for i in range(100_000)], step=10)
    assert found[-1] == pytest.approx(9000, rel=0.01)


def test_few_parts_and_the_end():
    assert said(3, [1.0, 100.0, 200.0]) == [None, None, 0.0]
    assert TimeLeft(10).seconds is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.6, "1 second"), (40, "40 seconds"), (119, "119 seconds"), (150, "2.5 minutes"), (9000, "2.5 hours"),
     (200_000, "2.3 days")],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words
