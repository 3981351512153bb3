"""Progress of work: reports, and bars that show them on a terminal and in a notebook."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from evl.runtime.text import visible

console = Console(stderr=True, emoji=False)  # for messages and progress
if not (console.is_terminal or console.is_jupyter):
    console.width = 200  # so that rich does not break lines at 80 columns in a file or pipe
QUICK = 1.0  # seconds; work that takes less time shows no bar
BETWEEN_LINES = 10.0  # seconds between two lines, where there are no bars
BETWEEN_PICTURES = 0.3  # seconds between two updates of a bar in a notebook
FIRST_SECONDS = 5  # of work before the first estimate
FIRST_REPORTS = 6  # before the first estimate
KEPT = 64  # reports in memory; when there are more, every second one is dropped
AGREE = 1.5  # the largest allowed ratio between the speed since the start and the speed of the later half


@dataclass(frozen=True)
class Progress:
    """A report that ``step`` of ``steps`` are done, counted in ``unit``.

    ``phase`` names the work, such as ``training`` (in steps) or ``evaluating`` (in videos of this process).
    ``started_at``: the step at which resumed work began.
    """

    phase: str
    step: int
    steps: int
    note: str = ""
    started_at: int = 0
    unit: str = ""


Report = Callable[[Progress], None]


def counting(report: Report, phase: str, total: int, unit: str = "videos") -> Callable[[int], None]:
    """Returns a function ``count(n)``: call it with the number of newly finished parts, and it reports their sum."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        report(Progress(phase, done, total, unit=unit))

    return count


@contextmanager
def showing(progress: bool | Report) -> Iterator[Report]:
    """Yields the function to call with reports.

    For True, it shows bars; evl's log is shown, too, unless the program has log handlers already. For False, it does
    nothing. Otherwise it is ``progress`` itself.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda report: None
    else:
        with _showing_log(), Bars() as bars:
            yield bars


def start_logging() -> logging.Handler | None:
    """Shows evl's log on stderr: from INFO on in the first process, only errors in the others.

    Returns the new handler, or None if the logger has one already.
    """
    logger = logging.getLogger("evl")
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    if logger.handlers:
        return None
    handler = RichHandler(console=console, show_path=False, show_level=False, highlighter=None)
    handler.setFormatter(_Visible())
    logger.addHandler(handler)
    return handler


class _Visible(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))


@contextmanager
def _showing_log() -> Iterator[None]:
    logger = logging.getLogger("evl")
    level = logger.level
    handler = None if logger.hasHandlers() else start_logging()
    try:
        yield
    finally:
        if handler is not None:
            logger.removeHandler(handler)
            logger.setLevel(level)


def is_main_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


class Bars:
    """Shows reports as bars on a terminal and in a notebook, elsewhere as one line every ten seconds.

    ``with Bars() as report: report(Progress("evaluating", 3, 100, unit="videos"))``
    """

    def __init__(self):
        self.lines: dict[str, _Line] = {}  # by phase
        self.bars = None  # a rich.progress.Progress, if bars can be shown
        self.picture = None  # the display of the bars in a notebook
        self.started = self.shown = time.monotonic()
        self.is_shown = False

    def __enter__(self) -> Bars:
        if is_main_process() and (console.is_terminal or console.is_jupyter):
            self.bars = _bars()
        return self

    def __call__(self, report: Progress) -> None:
        line = self.lines.get(report.phase)
        if line is None or report.step <= line.report.step:  # the first report of a phase, or of its next run
            line = self.lines[report.phase] = _Line(self, report, line)
        line.left.report(report.step)
        line.report = report
        if self.bars is not None:
            fields = dict(note=report.note, left=line.time_left, unit=report.unit)
            self.bars.update(line.number, completed=report.step, **fields)
            self._show()
        elif is_main_process() and time.monotonic() - self.shown > BETWEEN_LINES:
            self.shown = time.monotonic()
            line.print()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.started < QUICK:
            return
        if not console.is_jupyter:
            if not self.is_shown:
                self.bars.start()
        elif self.picture is None:
            from IPython.display import display

            self.picture = display(self.bars, display_id=True)
        elif now - self.shown > BETWEEN_PICTURES:
            self.picture.update(self.bars)
        else:
            return
        self.is_shown, self.shown = True, now

    def __exit__(self, *_) -> None:
        if self.picture is not None:
            self.picture.update(self.bars)
        elif self.is_shown:
            self.bars.stop()


def _bars():
    """Makes rich's progress bars. If the terminal is narrow, only the bar and the note become shorter."""
    from rich import progress
    from rich.table import Column

    class Note(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
        progress.TextColumn("{task.fields[unit]}"),
        progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
        progress.TextColumn("{task.fields[left]}"),
        Note(),
        console=console,
    )


class _Line:
    """The line of one phase in ``Bars``; it replaces the line ``before`` of that phase, if there is one."""

    def __init__(self, bars: Bars, report: Progress, before: _Line | None):
        self.report = report
        self.left = TimeLeft(report.steps, first=report.started_at)
        self.number = None
        if bars.bars is not None and before is None:
            self.number = bars.bars.add_task(report.phase, total=report.steps, note="", left="", unit="")
        elif bars.bars is not None:
            self.number = before.number
            bars.bars.reset(self.number, total=report.steps, note="", left="", unit="")

    @property
    def time_left(self) -> str:
        """The estimated time left in words, or '' without an estimate."""
        seconds = self.left.seconds
        return "" if seconds is None or self.report.step >= self.report.steps else f"{duration(seconds)} left"

    def print(self) -> None:
        one = self.report
        parts = (f"{one.phase} {one.step}/{one.steps} {one.unit}".rstrip(), one.note, self.time_left)
        console.print("  ".join(part for part in parts if part), highlight=False, markup=False)


class TimeLeft:
    """Estimates the seconds left for ``total`` parts of work, of which ``first`` were done before.

    The start (processes, first files, compilation) has another speed than the rest, so time counts from the first
    report. There is an estimate once the speed since then and the speed of the later half agree.
    """

    def __init__(self, total: int, first: int = 0, clock: Callable[[], float] = time.monotonic):
        self.total, self.first, self.clock = total, first, clock
        self.points: list[tuple[float, int]] = []  # (time, done) of the reports

    def report(self, done: int) -> None:
        """Records that ``done`` parts are done now."""
        if done <= (self.points[-1][1] if self.points else self.first):
            return
        self.points.append((self.clock(), done))
        if len(self.points) > KEPT:
            self.points = [self.points[0], *self.points[2:-1:2], self.points[-1]]

    @property
    def seconds(self) -> float | None:
        """The estimate, 0 when all is done, or None as long as there is no reliable estimate."""
        if self.points and self.points[-1][1] >= self.total:
            return 0.0
        if len(self.points) < FIRST_REPORTS:
            return None
        (start, before), (now, done) = self.points[0], self.points[-1]
        if now - start < FIRST_SECONDS:
            return None
        middle = next(point for point in reversed(self.points) if point[0] <= (start + now) / 2)
        speed, late = (done - before) / (now - start), (done - middle[1]) / (now - middle[0])
        if max(speed, late) > AGREE * min(speed, late):
            return None
        return (self.total - done) / late


def duration(seconds: float) -> str:
    """Rounded, in words: ``40 seconds``, ``2.5 minutes``, ``3.1 hours``, ``2.0 days``."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
