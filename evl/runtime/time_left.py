"""An estimate of the time that work still takes, only where it is reliable."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_SECONDS = 5  # of work before the first estimate
FIRST_REPORTS = 6  # before the first estimate
KEPT = 64  # reports in memory; when there are more, every second one is dropped
AGREE = 1.5  # the largest allowed ratio between the speed since the start and the speed of the later half


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
