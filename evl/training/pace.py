"""How long a run will take with its evaluations, measured on its own first steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from evl.config import RunConfig
from evl.runtime.progress import Progress, Report, TimeLeft, duration

log = logging.getLogger("evl")
LONGEST_MEASUREMENT = 60.0  # seconds; after them the speed so far is used, even if it still changes
WORTH_LOGGING = 30.0  # seconds; a shorter run needs no line about its time


@dataclass(frozen=True)
class RunTime:
    """The time of a run. An evaluation is counted as as many training clips, which is a little more than it needs."""

    num_steps: int  # steps of training
    seconds_per_step: float  # time of one step
    num_evaluations: int = 0  # evaluations before the last one
    quick_seconds: float = 0.0  # time of each of these
    final_seconds: float = 0.0  # time of the last evaluation
    measured: bool = False  # whether the run was so short that the whole run was measured

    @property
    def seconds(self) -> float:
        """Time of the whole run, from its first step on."""
        evaluations = self.num_evaluations * self.quick_seconds + self.final_seconds
        return self.num_steps * self.seconds_per_step + evaluations

    @property
    def sentence(self) -> str:
        if self.measured:
            return f"the run takes about {duration(self.seconds)}: all of it was measured"
        parts = [f"{self.num_steps} steps of {self.seconds_per_step:.2g} s"]
        if self.num_evaluations:
            each = "each " if self.num_evaluations > 1 else ""
            times = "evaluation" if self.num_evaluations == 1 else "evaluations"
            parts.append(f"{self.num_evaluations} {times} in between ({each}{duration(self.quick_seconds)})")
        if self.final_seconds:
            parts.append(f"the last evaluation ({duration(self.final_seconds)})")
        return f"the run takes about {duration(self.seconds)}: {', '.join(parts)}"


def run_time(config: RunConfig, seconds_per_step: float, num_val: int, first: int = 0) -> RunTime:
    """The time of a run from step ``first`` on. ``num_val``: number of validation videos."""
    training, views = config.training, config.evaluation
    clip = seconds_per_step / training.batch_size
    final = num_val * views.num_clips * views.num_crops * clip
    quick = final if config.data.features is not None else num_val * clip  # from a store all views are read
    every = training.eval_every
    times = training.steps // every - first // every if every and num_val else 0
    return RunTime(training.steps - first, seconds_per_step, times, quick, final)


class Pace:
    """Measures the speed of a run by its reports, and passes them on to ``progress``.

    It calls ``on_pace`` once, with the RunTime.
    """

    def __init__(
        self,
        config: RunConfig,
        num_val: int,
        progress: Report,
        on_pace: Callable[[RunTime], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.config, self.num_val, self.progress, self.clock = config, num_val, progress, clock
        self.on_pace: Callable[[RunTime], None] | None = on_pace
        self.left: TimeLeft | None = None
        self.evaluating = 0.0  # seconds of evaluations, which do not count for the steps
        self.last = clock()

    def __call__(self, report: Progress) -> None:
        now = self.clock()
        if report.phase != "training":
            self.evaluating += now - self.last
        elif self.on_pace is not None:
            if self.left is None:
                self.left = TimeLeft(report.steps, report.started_at, clock=lambda: self.clock() - self.evaluating)
            self.left.report(report.step)
            if (seconds := self._seconds_per_step()) is not None:
                on_pace, self.on_pace = self.on_pace, None
                on_pace(run_time(self.config, seconds, self.num_val, report.started_at))
        self.last = now
        self.progress(report)

    def _seconds_per_step(self) -> float | None:
        points, left = self.left.points, self.left.seconds
        if len(points) < 2 or points[-1][1] >= self.left.total:
            return None
        if left is not None:
            return left / (self.left.total - points[-1][1])
        (start, before), (now, done) = points[0], points[-1]
        return (now - start) / (done - before) if now - start >= LONGEST_MEASUREMENT else None


def log_run_time(run_time: RunTime) -> None:
    """Logs how long a run takes, unless it is short."""
    if run_time.seconds >= WORTH_LOGGING:
        log.info("%s", run_time.sentence)
