"""The time left is said where it can be known, and then it is right."""

import pytest

from evl.cli import common
from evl.runtime.time_left import TimeLeft, duration


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


def test_lines_say_nothing_of_the_time_before_it_is_known(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(common.time, "monotonic", clock)
    monkeypatch.setattr(common, "TimeLeft", lambda total, first=0: TimeLeft(total, first, clock))
    lines = []
    monkeypatch.setattr(common.console, "print", lambda text, **_: lines.append(text))
    with common.Bars("videos") as bars:
        bars.bars = None  # as in a file
        task = bars.add("evaluating", 400)
        clock.now = 11
        task.to(1)
        for _ in range(100):
            clock.now += 0.2
            task.advance()
    assert lines[0] == "evaluating 1/400 videos"
    assert lines[1].startswith("evaluating 52/400 videos  ")
    assert lines[1].endswith(" seconds left")
