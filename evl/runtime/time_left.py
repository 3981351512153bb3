"""How long work still takes, said only where it can be known."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_SECONDS = 5  # of steady work that are watched before anything is said
FIRST_REPORTS = 6
KEPT = 64  # points in time that are remembered; beyond, every second one is dropped
AGREE = 1.5  # the speed so far and that of late must not differ by more times


class TimeLeft:
    """Seconds that are left of ``total`` parts, of which ``first`` were done before.

    Starting up (processes, first files, compilation) says nothing about the speed of what follows, so time counts from
    the first report. The time left is known once the speed since then and the speed of the later half agree.
    """

    def __init__(self, total: int, first: int = 0, clock: Callable[[], float] = time.monotonic):
        self.total, self.first, self.clock = total, first, clock
        self.points: list[tuple[float, int]] = []  # (time, done) of the reports

    def report(self, done: int) -> None:
        """``done`` parts are done by now."""
        if done <= (self.points[-1][1] if self.points else self.first):
            return
        self.points.append((self.clock(), done))
        if len(self.points) > KEPT:
            self.points = [self.points[0], *self.points[2:-1:2], self.points[-1]]

    @property
    def seconds(self) -> float | None:
        """None where it cannot be known yet. 0 when all is done."""
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
    """In words, as exact as an estimate is: ``40 seconds``, ``2.5 minutes``, ``3.1 hours``, ``2.0 days``."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
