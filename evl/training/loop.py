"""The training loop: on a page, alone or under torchrun."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from evl.assembly import save_model
from evl.config import RunConfig
from evl.data.dataset import Batch
from evl.data.moved import NO_FILE
from evl.data.splits import stop_if_too_many
from evl.distributed import World
from evl.errors import DataError, RunError
from evl.evaluation import Evaluation
from evl.models import VideoClassifier
from evl.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from evl.training.optim import learning_rate, make_optimizer, make_scaler, train_step
from evl.training.run_folder import RunFolder
from evl.training.sources import Source

log = logging.getLogger("evl")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) came; a checkpoint was saved."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``phase`` is ``training`` (in steps) or ``evaluating`` (in videos of this process)."""

    phase: str
    step: int
    steps: int
    note: str = ""
    started_at: int = 0  # the step a resumed run began with


@dataclass(frozen=True)
class Speed:
    """What happened since the last report. ``wait_share``: of the time, spent waiting for data."""

    loss: float
    train_top1: float
    clips_per_second: float
    wait_share: float

    def describe(self, advice: str) -> str:
        """One line, with what to do about it where data is what training waits for."""
        waiting = f"waiting for data {100 * self.wait_share:.0f} %"
        if self.wait_share > 0.2:
            waiting += f" ({advice})"
        return f"loss {self.loss:.3f}  {self.clips_per_second:.1f} clips/s  {waiting}"


def fit(
    model: VideoClassifier,
    config: RunConfig,
    source: Source,
    folder: RunFolder,
    world: World,
    *,
    resume: bool,
    damaged: dict[str, str],
    moved: Mapping[str, str] | None = None,
    progress: Callable[[Progress], None] = lambda report: None,
) -> None:
    """Trains from the first step, or from the newest checkpoint, to the last; fills ``damaged`` (path → reason).

    Clips come from ``source``: videos, or features of them that are stored. ``moved``: old path → new one, of videos
    that a resumed run finds elsewhere. Raises RunError if too many videos are damaged, not one clip could be read, or
    the loss is not finite, Interrupted after Ctrl-C.
    """
    training = config.training
    run = _Run(model, config, source, folder, world, damaged, progress)
    first = run.resume(moved or {}) if resume else 0
    batches = source.read_batches(first)
    if training.compile:
        model.compile()
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if world.size > 1 else model
    model.train()
    with listening_for_stop() as stop_requested:
        for step in range(first, training.steps):
            started = time.perf_counter()
            micro = list(islice(batches, training.accumulation))
            waited = time.perf_counter() - started
            parts = [(source.clips(batch), batch.labels) for batch in micro]
            totals = train_step(wrapped, run.optimizer, run.scaler, parts, step, training, world)
            run.meter.add(totals, waited, time.perf_counter() - started)
            done = step + 1
            is_last = done == training.steps
            report_now = done % training.log_every == 0 or is_last
            run.count_clips(micro, done)
            run.watch_damage(micro, done, everywhere=report_now)
            if is_last:
                run.refuse_without_clips()
            if report_now:
                run.report(done)
            progress(Progress("training", done, training.steps, run.note, first))
            if source.val_samples and training.eval_every and done % training.eval_every == 0:
                run.validate(done, stop_requested)
            stopping = stop_requested() if world.size == 1 else report_now and any(world.gather(stop_requested()))
            if done % training.save_every == 0 or is_last or stopping:
                run.save(done)
            if stopping and not is_last:
                raise Interrupted(f"stopped at step {done}; a checkpoint is saved")
    run.close()


class _Run:
    """What the loop carries from step to step, and the things it does now and then."""

    def __init__(self, model, config: RunConfig, source: Source, folder: RunFolder, world: World, damaged, progress):
        self.model, self.config, self.source, self.folder, self.world = model, config, source, folder, world
        self.damaged, self.progress = damaged, progress
        training = config.training
        self.seed(0)
        self.optimizer, self.scaler = make_optimizer(model, training), make_scaler(training, world.device)
        self.meter, self.note, self.best = _Meter(), "", -1.0
        self.num_clips, self.num_empty = 0, 0  # clips seen by this process, steps for which it had none
        self._writer = None
        if world.is_main:
            for torn in folder.checkpoints.glob(".*.tmp"):  # left by a run that was killed while saving
                torn.unlink(missing_ok=True)

    def seed(self, step: int) -> None:
        """For dropout: each process draws its own."""
        torch.manual_seed(self.config.training.seed * 1_000_003 + self.world.rank + step)

    def resume(self, moved: Mapping[str, str]) -> int:
        """Puts the newest checkpoint back, if there is one; the number of steps done."""
        first = 0
        if saved := list_checkpoints(self.folder.checkpoints):
            state = load_checkpoint(saved[-1], self.model, self.optimizer, self.scaler, self.world.device)
            first, self.best, self.meter = state["step"], state["best"], _Meter(*state["meter"])
            # what is gone is known from now, not from then
            then = {moved.get(path, path): why for path, why in state["damaged"].items() if why != NO_FILE}
            self.damaged.update(then)
            self.num_clips = state.get("num_clips", 1)  # of a checkpoint that did not count them yet: some
            if self.world.size > 1:  # one process's random state was saved; the others draw afresh
                self.seed(first)
        if self.world.is_main:
            self.folder.forget_after(first)
            self._writer = _tensorboard(self.folder.path, purge_step=first + 1)
            log.info("resuming at step %d of %d", first, self.config.training.steps)
        return first

    def count_clips(self, micro: Sequence[Batch], done: int) -> None:
        count = sum(len(batch.labels) for batch in micro)
        self.num_clips += count
        if not count:
            self.num_empty += 1
            if self.num_empty == 1 and self.world.size == 1:
                log.warning("step %d: not one of its clips could be read, so no step is taken", done)

    def refuse_without_clips(self) -> None:
        """RunError where this run has not seen one clip."""
        if not sum(self.world.gather(self.num_clips)):
            raise RunError(
                f"not one clip could be read in {self.config.training.steps} steps, so nothing was learned: see "
                f"{self.folder.path / 'damaged.csv'}; 'evl check' looks at every video"
            )
        if self.num_empty and self.world.size == 1:
            log.warning("%d steps were not taken, because none of their clips could be read", self.num_empty)

    def watch_damage(self, micro: Sequence[Batch], done: int, *, everywhere: bool) -> None:
        """Notes damaged videos; alone at once, many processes when they report (``everywhere``)."""
        new = {self.source.train_samples[i].path: why for batch in micro for i, why in batch.damaged.items()}
        self.damaged.update(new)
        if not (everywhere or (new and self.world.size == 1)):
            return
        self._gather_damage()
        if self.world.is_main and self.damaged:
            self.folder.write_damaged(self.damaged)
        try:
            stop_if_too_many(self.damaged, self.source.train_samples, self.config)
        except RunError:
            self.save(done)  # so that a raised limit can go on from here
            raise

    def report(self, done: int) -> None:
        speed, self.meter = self.meter.speed(), _Meter()
        if not math.isfinite(speed.loss):
            raise RunError(f"the loss is {speed.loss} at step {done}; lower training.lr, or check the data")
        if not speed.clips_per_second:  # nothing was read since the last report: there is no loss to tell
            self.note = f"no clips  damaged {len(self.damaged)}"
            return
        lr = learning_rate(done - 1, self.config.training)
        self._log({"step": done, "lr": lr, "num_damaged": len(self.damaged), **asdict(speed)})
        damaged = f"  damaged {len(self.damaged)}" if self.damaged else ""
        self.note = speed.describe(self.source.advice) + damaged

    def validate(self, done: int, stop_requested: Callable[[], bool]) -> None:
        """The validation videos on one view each, or all that are stored; the best model so far is kept."""

        def progress(report: Progress) -> None:
            self.progress(report)
            if stop_requested() and self.world.size == 1:
                raise Interrupted

        try:
            result = judge(self.model, self.source, self.world, progress, quick=True)
        except Interrupted:
            log.warning("the validation of step %d is skipped", done)
            return
        except DataError as error:
            log.warning("the validation of step %d has no score: %s", done, error)
            return
        scores = result.metrics.to_dict()
        self._log({"step": done, **{f"val_{name}": score for name, score in scores.items()}})
        log.info("step %d: val top-1 %.2f %% (%s)", done, result.metrics.top1, result.protocol)
        if result.metrics.top1 > self.best and self.world.is_main:
            save_model(self.model, self.folder.path / "best", scores=result.to_dict())
        self.best = max(self.best, result.metrics.top1)

    def save(self, done: int) -> None:
        self._gather_damage()
        if not all(parameter.isfinite().all() for parameter in self.model.trainable_parameters()):
            raise RunError(f"weights are not finite after step {done}, not saved; lower training.lr")
        num_clips = sum(self.world.gather(self.num_clips))
        if self.world.is_main:
            save_checkpoint(
                self.folder.checkpoints, done, self.model, self.optimizer, self.scaler, self.world.device,
                keep_last=self.config.training.keep_last, best=self.best, damaged=self.damaged,
                meter=self.meter.state(), num_clips=num_clips,
            )  # fmt: skip

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _gather_damage(self) -> None:
        for other in self.world.gather(dict(self.damaged)):
            self.damaged.update(other)

    def _log(self, values: dict) -> None:
        if not self.world.is_main:
            return
        self.folder.log(values)
        if self._writer is None:
            self._writer = _tensorboard(self.folder.path, purge_step=None)
        for name, value in values.items():
            if name != "step":
                self._writer.add_scalar(name, value, values["step"])


def judge(
    model: VideoClassifier, source: Source, world: World, progress: Callable[[Progress], None], *, quick: bool = False
) -> Evaluation:
    """The validation videos of ``source``; ``quick``: on as few views as it can give."""
    total, done = len(range(world.rank, len(source.val_samples), world.size)), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(Progress("evaluating", done, total))

    return source.evaluate(model, count, quick=quick)


class _Meter:
    """Sums between two reports; losses are fetched from the device only when they are shown."""

    def __init__(self, totals: float | torch.Tensor = 0.0, waited: float = 0.0, passed: float = 0.0):
        self.totals, self.waited, self.passed = totals, waited, passed

    def state(self) -> tuple:
        """For a checkpoint: a resumed run reports what an unbroken one would."""
        totals = self.totals.cpu() if isinstance(self.totals, torch.Tensor) else self.totals
        return totals, self.waited, self.passed

    def add(self, totals: torch.Tensor, waited: float, passed: float) -> None:
        before = self.totals.to(totals.device) if isinstance(self.totals, torch.Tensor) else self.totals
        self.totals = before + totals
        self.waited += waited
        self.passed += passed

    def speed(self) -> Speed:
        started = time.perf_counter()
        loss, clips, hits = self.totals.tolist()  # waits for the device: that time is the steps' too
        self.passed += time.perf_counter() - started
        seen = max(1.0, clips)
        return Speed(loss / seen, 100 * hits / seen, clips / self.passed, self.waited / self.passed)


@contextmanager
def listening_for_stop():
    """Ctrl-C and SIGTERM end the step first; a second one ends at once. Only the main thread may listen."""
    requested = []

    def note(number, frame):
        if requested:
            raise KeyboardInterrupt
        requested.append(number)
        log.warning("stopping after this step, saving what is there; once more to stop at once")

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


def _tensorboard(folder: Path, *, purge_step: int | None):
    """Curves; what a resumed run will write again is purged."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)
