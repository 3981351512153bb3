"""The one loop that trains: a run's learner, a sweep's, few-shot's, the demo's; alone or under torchrun."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from evl.config import TrainingConfig
from evl.data.loader import StepSampler
from evl.errors import RunError
from evl.runtime.distributed import World
from evl.runtime.progress import Progress, Report
from evl.streams import Batch, Stream
from evl.training.learners import Learners

log = logging.getLogger("evl")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) came; what there was is saved."""


@dataclass(frozen=True)
class Speed:
    """What happened since the last report. ``wait_share``: of the time, spent waiting for data."""

    clips_per_second: float
    wait_share: float

    def describe(self, advice: str) -> str:
        """What to do about it where data is what training waits for."""
        waiting = f"waiting for data {100 * self.wait_share:.0f} %"
        if self.wait_share > 0.2:
            waiting += f" ({advice})"
        return f"{self.clips_per_second:.1f} clips/s  {waiting}"


@dataclass
class Meter:
    """Sums between two reports."""

    clips: int = 0
    waited: float = 0.0
    passed: float = 0.0

    def speed(self) -> Speed:
        passed = max(self.passed, 1e-9)
        return Speed(self.clips / passed, min(1.0, self.waited / passed))


class Keeper:
    """What is kept of a training while it goes on; this one keeps nothing. ``evl.training.keeper`` has the one of runs.

    ``fit`` calls the methods in this order: ``resume`` once; after each step ``watch``, ``report`` where one is due
    (with its note for the progress), ``validate``, ``save`` where one is due or the training is to stop. ``where``
    ends a sentence about damaged videos.
    """

    where = ""

    def resume(self, learners: Learners) -> int:
        """The number of steps done before."""
        return 0

    def watch(self, learners: Learners, damaged: dict[int, str], done: int, *, everywhere: bool) -> None:
        """``damaged``: what this process met in this step; ``everywhere``: all processes call with it set."""

    def report(self, learners: Learners, done: int, speed: Speed) -> str:
        losses = [learner.curve[-1][2] for learner in learners.living if learner.has_point(done)]
        if not losses:  # nothing was read since the last report: there is no loss to tell
            return "no clips  "
        best = min(losses)
        many = f"{len(learners.living)} heads  best " if len(learners.all) > 1 else ""
        return f"{many}loss {best:.3f}  "

    def validate(self, learners: Learners, done: int, stop_requested: Callable[[], bool]) -> None:
        pass

    def save(self, learners: Learners, done: int) -> None:
        pass


def fit(
    stream: Stream,
    learners: Learners,
    training: TrainingConfig,
    world: World,
    keeper: Keeper | None = None,
    *,
    progress: Report = lambda report: None,
) -> int:
    """Trains all learners on the same batches of ``stream``, from where ``keeper`` says to the last step; returns the
    number of steps done, fewer only where no learner was left.

    ``training``: what they share (steps, batch size, accumulation, seed of the order, when to report and save); each
    learner's own config says how it learns. Raises RunError if all learners were
    dropped, or not one clip could be read; Interrupted after Ctrl-C.
    """
    keeper = keeper or Keeper()
    first = keeper.resume(learners)
    sampler = make_sampler(training, len(stream.samples), first, world)
    batches = stream.read(sampler)
    learners.train()
    meter, note, num_empty = Meter(), "", 0
    with listening_for_stop() as stop_requested:
        for step in range(first, training.steps):
            started, waited, living = time.perf_counter(), stream.waited_seconds, learners.living
            damaged: dict[int, str] = {}
            before = meter.clips
            learners.step(step, _counted(islice(batches, training.accumulation), damaged, meter), world)
            done = step + 1
            if world.size == 1 and meter.clips == before:
                num_empty += 1
                if num_empty == 1:
                    log.warning("step %d: not one of its clips could be read, so no step is taken", done)
            is_last = done == training.steps
            meter.waited += stream.waited_seconds - waited
            meter.passed += time.perf_counter() - started
            report_now = done % training.log_every == 0 or is_last
            keeper.watch(learners, damaged, done, everywhere=report_now)
            _tell_dropped(learners, living)
            if report_now:
                meter.clips *= world.size
                speed, meter = meter.speed(), Meter()
                note = keeper.report(learners, done, speed) + speed.describe(stream.advice)
            progress(Progress("training", done, training.steps, note, first, "steps"))
            if training.eval_every and done % training.eval_every == 0:
                keeper.validate(learners, done, stop_requested)
            stopping = stop_requested() if world.size == 1 else report_now and any(world.gather(stop_requested()))
            if is_last:
                _refuse_without_clips(learners, training, keeper)
            if done % training.save_every == 0 or is_last or stopping:
                keeper.save(learners, done)
            if stopping and not is_last:
                raise Interrupted(f"stopped at step {done}")
    if num_empty:
        log.warning("%d steps were not taken, because none of their clips could be read", num_empty)
    return training.steps


def _refuse_without_clips(learners: Learners, training: TrainingConfig, keeper: Keeper) -> None:
    """RunError where not one clip was seen."""
    if not any(learner.num_clips for learner in learners.living):
        raise RunError(
            f"not one clip could be read in {training.steps} steps, so nothing was learned{keeper.where}; "
            "'evl check' looks at every video"
        )


def _counted(batches: Iterable[Batch], damaged: dict[int, str], meter: Meter) -> Iterator[Batch]:
    """One batch of features in memory at a time."""
    for batch in batches:
        damaged |= batch.damaged
        meter.clips += len(batch.labels)
        yield batch
        del batch


def _tell_dropped(learners: Learners, before: list) -> None:
    """Names learners that this step was the last of; RunError if none is left."""
    living = learners.living
    if len(living) == len(before):
        return
    dropped = [learner for learner in before if learner.problem is not None]
    if not living and len(learners.all) == 1:
        raise RunError(dropped[0].problem)
    for learner in dropped:
        log.warning("dropped: %s (%s)", learner.name, learner.problem)
    if not living:
        raise RunError(
            f"all {len(learners.all)} heads were dropped, such as {learners.all[0].name}: {learners.all[0].problem}"
        )


def make_sampler(training: TrainingConfig, num_samples: int, first_step: int, world: World) -> StepSampler:
    """This process's part of every step from ``first_step`` on; ConfigError if the batch cannot be split."""
    return StepSampler(
        num_samples,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        first_step=first_step,
        last_step=training.steps,
        seed=training.seed,
        rank=world.rank,
        world_size=world.size,
    )


@contextmanager
def listening_for_stop():
    """Ctrl-C and SIGTERM end the step first; a second one ends at once. Only the main thread may listen."""
    requested = []

    def note(number, frame):
        if requested:
            raise KeyboardInterrupt
        requested.append(number)
        log.warning("stopping after this step; once more to stop at once")

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread
        pass
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
