"""The one training loop, for runs, sweeps, few-shot and the demo, in one process or under torchrun."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Set
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
    """Ctrl-C or SIGTERM stopped the training, after a checkpoint was saved."""


@dataclass(frozen=True)
class Speed:
    """The speed since the last report. ``wait_share``: the share of the time spent waiting for data, from 0 to 1."""

    clips_per_second: float
    wait_share: float

    def describe(self, advice: str) -> str:
        """The speed in words, with ``advice`` if training waits for data more than a fifth of the time."""
        waiting = f"waiting for data {100 * self.wait_share:.0f} %"
        if self.wait_share > 0.2:
            waiting += f" ({advice})"
        return f"{self.clips_per_second:.1f} clips/s  {waiting}"


@dataclass
class Meter:
    """Sums since the last report: clips, seconds waited for data, seconds passed."""

    clips: int = 0
    waited: float = 0.0
    passed: float = 0.0

    def speed(self) -> Speed:
        passed = max(self.passed, 1e-9)
        return Speed(self.clips / passed, min(1.0, self.waited / passed))


class Keeper:
    """Keeps the state of a training while it runs. This class keeps nothing; ``RunKeeper`` keeps a run's.

    ``fit`` calls ``resume`` once. After each step it calls ``watch``; every ``log_every`` steps ``report``, which
    returns a note for the progress bar; every ``eval_every`` steps ``validate``; and every ``save_every`` steps, at the
    end, and before a stop ``save``. ``where`` is added to the error that no clip could be read.
    """

    where = ""

    def resume(self, learners: Learners) -> int:
        """Loads an earlier state, if there is one, and returns the number of steps done before."""
        return 0

    def watch(
        self, learners: Learners, damaged: dict[int, str], read: Set[int], done: int, *, everywhere: bool
    ) -> None:
        """Notes the videos that this process could not read in this step, ``damaged``: index -> reason, and those that
        it could: ``read``.

        ``everywhere``: whether the processes can exchange their lists now. It is the same in all processes.
        """

    def report(self, learners: Learners, done: int, speed: Speed) -> str:
        losses = [learner.curve[-1][2] for learner in learners.living if learner.has_point(done)]
        if not losses:  # no clip was read since the last report
            return "no clips  "
        best = min(losses)
        many = f"{len(learners.living)} learners  best " if len(learners.all) > 1 else ""
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
    """Trains all learners on the same batches of ``stream`` up to the last step, and returns the number of steps.

    Each learner has its learning rate and other settings in its own config. ``training``: the settings that all share:
    steps, batch size, accumulation, seed of the order, when to report and save. ``keeper``: keeps checkpoints and
    curves, and decides the first step; None: keeps nothing.

    Raises RunError if all learners were dropped or no clip could be read, Interrupted after Ctrl-C or SIGTERM.
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
            read: set[int] = set()
            before = meter.clips
            learners.step(step, _counted(islice(batches, training.accumulation), damaged, read, meter), world)
            done = step + 1
            if world.size == 1 and meter.clips == before:
                num_empty += 1
                if num_empty == 1:
                    log.warning("step %d: none of its clips could be read, so the weights stay the same", done)
            is_last = done == training.steps
            meter.waited += stream.waited_seconds - waited
            meter.passed += time.perf_counter() - started
            report_now = done % training.log_every == 0 or is_last
            keeper.watch(learners, damaged, read, done, everywhere=report_now)
            _warn_of_dropped(learners, living)
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
        log.warning("%d steps changed no weights, because none of their clips could be read", num_empty)
    return training.steps


def _refuse_without_clips(learners: Learners, training: TrainingConfig, keeper: Keeper) -> None:
    """Raises RunError if no clip was read in the whole training."""
    if not any(learner.num_clips for learner in learners.living):
        raise RunError(
            f"not one clip could be read in {training.steps} steps, so nothing was learned{keeper.where}; "
            "run 'evl check', which reads every video"
        )


def _counted(batches: Iterable[Batch], damaged: dict[int, str], read: set[int], meter: Meter) -> Iterator[Batch]:
    """The same batches, after noting their clips, and the videos that could be read and could not.

    Only one batch is in memory at a time.
    """
    for batch in batches:
        damaged |= batch.damaged
        read.update(batch.indices)
        meter.clips += len(batch.labels)
        yield batch
        del batch


def _warn_of_dropped(learners: Learners, before: list) -> None:
    """Logs the learners that were dropped in this step. Raises RunError if none is left."""
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
            f"all {len(learners.all)} learners were dropped, such as {learners.all[0].name}: {learners.all[0].problem}"
        )


def make_sampler(training: TrainingConfig, num_samples: int, first_step: int, world: World) -> StepSampler:
    """Draws this process's samples of every step from ``first_step`` on.

    Raises ConfigError if a batch cannot be divided among the processes.
    """
    return StepSampler(
        num_samples,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        repeats=training.repeated_augmentation,
        first_step=first_step,
        last_step=training.steps,
        seed=training.seed,
        rank=world.rank,
        world_size=world.size,
    )


@contextmanager
def listening_for_stop():
    """Gives a function that returns whether Ctrl-C or SIGTERM came, so that the step can end first.

    A second one stops at once. Only the main thread can handle signals; in others the function returns False.
    """
    requested = []

    def note(number, frame):
        if requested:
            raise KeyboardInterrupt
        requested.append(number)
        log.warning("stopping after this step; press Ctrl-C again to stop at once")

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
