"""Bars on a terminal, lines elsewhere, and nothing where nothing is wanted."""

import io
import logging
import re

import pytest
from rich.console import Console

from evl.runtime import progress
from evl.runtime.progress import Bars, Progress, TimeLeft, counting, showing


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr(progress, "TimeLeft", lambda total, first=0: TimeLeft(total, first, clock))
    return clock


@pytest.fixture
def screen(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, no_color=True, width=120))
    return screen


def last_picture(screen):
    """What the terminal shows in the end."""
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).split("training")[-1]


def test_lines_say_nothing_of_the_time_before_it_is_known(monkeypatch, clock):
    lines = []
    monkeypatch.setattr(progress.console, "print", lambda text, **_: lines.append(text))
    with Bars() as report:
        count = counting(report, "evaluating", 400)
        clock.now = 11
        count(1)
        for _ in range(100):
            clock.now += 0.2
            count(1)
    assert lines[0] == "evaluating 1/400 videos"
    assert lines[1].startswith("evaluating 52/400 videos  ")
    assert lines[1].endswith(" seconds left")


def test_bars_of_several_phases(screen, clock):
    """An evaluation in between begins anew, in its own line; the time left is that of each."""
    with Bars() as report:
        for step in range(1, 41):
            clock.now += 1
            report(Progress("training", step, 50, "loss 0.5", unit="steps"))
            if step in (20, 40):
                for video in (4, 8):
                    report(Progress("evaluating", video, 8, unit="videos"))
    last = last_picture(screen)
    assert "40/50 steps" in last
    assert "10 seconds left" in last
    assert "loss 0.5" in last
    assert re.search("evaluating .* 8/8 +videos", last)
    assert last.count("evaluating") == 1


def test_a_narrow_terminal_shortens_the_note(screen, clock):
    progress.console.width = 80
    with Bars() as report:
        for step in range(1, 41):
            clock.now += 1
            note = "loss 0.656  1.0 clips/s  waiting for data 2 %"
            report(Progress("training", step, 50, note, unit="steps"))
    assert re.search("40/50 steps .* 10 seconds left loss .*…", last_picture(screen))


def test_what_was_done_before_does_not_count_for_the_time_left(screen, clock):
    with Bars() as report:
        for step in range(81, 91):
            clock.now += 2
            report(Progress("training", step, 100, started_at=80))
    assert "20 seconds left" in last_picture(screen)


def test_quick_work_shows_nothing(screen, clock):
    with Bars() as report:
        for step in range(10):
            clock.now += 0.09
            report(Progress("predicting", step + 1, 10))
    assert screen.getvalue() == ""


def test_where_reports_go(monkeypatch, clock):
    """To a function; nowhere; or to bars, with what evl logs, unless the program has a handler."""
    logger, seen, lines = logging.getLogger("evl"), [], []
    with showing(seen.append) as report:
        counting(report, "embedding", 3)(2)
    assert seen == [Progress("embedding", 2, 3, unit="videos")]
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    monkeypatch.setattr(progress.console, "print", lambda text, **_: lines.append(str(text)))
    for number, shown in enumerate((False, True)):
        with showing(shown) as report:
            clock.now += 20
            report(Progress("training", 1, 2, unit="steps"))
        assert lines == ["training 1/2 steps"] * number

    monkeypatch.setattr(logger, "propagate", False)  # pytest's own handlers
    monkeypatch.setattr(logger, "handlers", [])  # a command that ran before leaves one
    assert not logger.hasHandlers()
    level = logger.level
    with showing(True), showing(True):
        assert (len(logger.handlers), logger.level) == (1, logging.INFO)
    assert (logger.handlers, logger.level) == ([], level)
    with showing(False):
        assert logger.handlers == []
    own = logging.NullHandler()
    logger.addHandler(own)
    try:
        with showing(True):
            assert logger.handlers == [own]
    finally:
        logger.removeHandler(own)
