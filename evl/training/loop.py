"""The training loop: on a page, alone or under torchrun."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from evl.assembly import save_model
from evl.config import RunConfig
from evl.data.dataset import StepSampler, TrainingClips, default_num_workers, read_batches
from evl.distributed import World
from evl.errors import RunError
from evl.evaluation import Evaluation, evaluate
from evl.models import VideoClassifier
from evl.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from evl.training.optim import learning_rate, make_optimizer, make_scaler, train_step
from evl.training.run_folder import RunFolder
from evl.types import Sample
from evl.video.augment import TrainingTransform

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

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f}  {self.clips_per_second:.1f} clips/s  waiting for data {100 * self.wait_share:.0f} %"
        )


def fit(
    model: VideoClassifier,
    config: RunConfig,
    train_samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    folder: RunFolder,
    world: World,
    *,
    resume: bool,
    damaged: dict[str, str],
    progress: Callable[[Progress], None] = lambda report: None,
) -> None:
    """Trains from the first step, or from the newest checkpoint, to the last; fills ``damaged`` (path → reason).

    Raises RunError if too many videos are damaged or the loss is not finite, Interrupted after Ctrl-C.
    """
    training = config.training
    torch.manual_seed(training.seed * 1_000_003 + world.rank)  # dropout: different in each process
    optimizer, scaler = make_optimizer(model, training), make_scaler(training, world.device)
    first, best = 0, -1.0
    meter, note = _Meter(), ""
    if world.is_main:
        for torn in folder.checkpoints.glob(".*.tmp"):  # left by a run that was killed while saving
            torn.unlink(missing_ok=True)
    if resume and (saved := list_checkpoints(folder.checkpoints)):
        state = load_checkpoint(saved[-1], model, optimizer, scaler, world.device)
        first, best = state["step"], state["best"]
        damaged.update(state["damaged"])
        meter = _Meter(*state["meter"])
        if world.size > 1:  # one process's random state was saved; the others draw afresh
            torch.manual_seed(training.seed * 1_000_003 + world.rank + first)
    if resume and world.is_main:
        folder.forget_after(first)
        log.info("resuming at step %d of %d", first, training.steps)
    index_of = {name: y for y, name in enumerate(model.class_names)}
    transform = TrainingTransform(config.augment, model.card.preprocessing, model.class_names)
    labels = [index_of[sample.label] for sample in train_samples]
    dataset = TrainingClips(train_samples, labels, config.clip, transform, training.seed)
    sampler = make_sampler(config, len(train_samples), first, world)
    workers = config.data.num_workers
    workers = default_num_workers(world.size) if workers is None else workers
    clip_shape = (config.clip.num_frames, 3, *model.card.preprocessing.image_size)
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if world.size > 1 else model
    writer = _tensorboard(folder.path / "tensorboard", first if resume else None) if world.is_main else None
    model.train()

    def save(done: int) -> None:
        if world.is_main:
            save_checkpoint(
                folder.checkpoints, done, model, optimizer, scaler, world.device,
                keep_last=training.keep_last, best=best, damaged=damaged, meter=meter.state(),
            )  # fmt: skip

    with _stop_requested() as stop_requested:
        batches = read_batches(dataset, sampler, num_workers=workers, device=world.device)
        for step in range(first, training.steps):
            started = time.perf_counter()
            micro = list(islice(batches, training.accumulation))
            waited = time.perf_counter() - started
            damaged.update({train_samples[i].path: why for batch in micro for i, why in batch.damaged.items()})
            parts = [(batch.pixels, batch.labels) for batch in micro]
            totals = train_step(wrapped, optimizer, scaler, parts, step, training, world, clip_shape)
            meter.add(totals, waited, time.perf_counter() - started)
            done = step + 1
            report_now = done % training.log_every == 0 or done == training.steps
            evaluate_now = bool(val_samples) and training.eval_every and done % training.eval_every == 0
            if report_now or (world.size == 1 and any(batch.damaged for batch in micro)):
                for other in world.gather(dict(damaged)):
                    damaged.update(other)
                if world.is_main and damaged:
                    folder.write_damaged(damaged)
                try:
                    stop_if_too_many(damaged, train_samples, config)
                except RunError:
                    save(done)  # so that a raised limit can go on from here
                    raise
            if report_now:
                speed, meter = meter.speed(), _Meter()
                if not math.isfinite(speed.loss):
                    raise RunError(f"the loss is {speed.loss} at step {done}; lower training.lr, or check the data")
                if world.is_main:
                    values = {"step": done, "lr": learning_rate(step, training), "num_damaged": len(damaged)}
                    _write(folder, writer, {**values, **asdict(speed)})
                note = f"{speed}  damaged {len(damaged)}" if damaged else str(speed)
            progress(Progress("training", done, training.steps, note, first))
            if evaluate_now:
                result = evaluate_once(model, val_samples, config, world, workers, progress, num_clips=1, num_crops=1)
                if world.is_main:
                    scores = result.metrics.to_dict()
                    _write(folder, writer, {"step": done, **{f"val_{name}": score for name, score in scores.items()}})
                    log.info("step %d: val top-1 %.2f %% (%s)", done, result.metrics.top1, result.protocol)
                    if result.metrics.top1 > best:
                        save_model(model, folder.path / "best", scores=scores)
                best = max(best, result.metrics.top1)
            stopping = stop_requested() if world.size == 1 else report_now and any(world.gather(stop_requested()))
            if done % training.save_every == 0 or done == training.steps or stopping:
                for other in world.gather(dict(damaged)):
                    damaged.update(other)
                if not all(parameter.isfinite().all() for parameter in model.trainable_parameters()):
                    raise RunError(f"weights are not finite after step {done}, not saved; lower training.lr")
                save(done)
            if stopping and done < training.steps:
                raise Interrupted(f"stopped at step {done}; a checkpoint is saved")
    if writer is not None:
        writer.close()


def make_sampler(config: RunConfig, num_samples: int, first_step: int, world: World) -> StepSampler:
    """This process's part of every step from ``first_step`` on; ConfigError if the batch cannot be split."""
    return StepSampler(
        num_samples,
        batch_size=config.training.batch_size,
        accumulation=config.training.accumulation,
        first_step=first_step,
        last_step=config.training.steps,
        seed=config.training.seed,
        rank=world.rank,
        world_size=world.size,
    )


def evaluate_once(
    model, samples, config: RunConfig, world: World, workers: int, progress: Callable[[Progress], None], **views
) -> Evaluation:
    """The validation videos, by the config's views unless ``views`` says otherwise."""
    total, done = len(range(world.rank, len(samples), world.size)), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(Progress("evaluating", done, total))

    return evaluate(
        model, samples, num_workers=workers, precision=config.training.precision, world=world,
        batch_size=config.evaluation.batch_size, progress=count, **views,
    )  # fmt: skip


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
        loss, clips, hits = self.totals.tolist()
        seen = max(1.0, clips)
        return Speed(loss / seen, 100 * hits / seen, clips / self.passed, self.waited / self.passed)


def stop_if_too_many(damaged: dict[str, str], train_samples: Sequence[Sample], config: RunConfig) -> None:
    """RunError if more than the allowed share of the training files is damaged."""
    total, allowed = len({sample.path for sample in train_samples}), config.data.max_damaged_share
    if len(damaged) > allowed * total:
        path, reason = next(iter(damaged.items()))
        raise RunError(
            f"{len(damaged)} of {total} training videos are damaged ({100 * len(damaged) / total:.1f} %, allowed "
            f"{100 * allowed:g} %), such as {path}: {reason}. 'evl check' lists them; mend or remove them, or raise "
            "data.max_damaged_share"
        )


@contextmanager
def _stop_requested():
    """Ctrl-C and SIGTERM end the step first; a second one ends at once. Only the main thread may listen."""
    requested = []

    def note(number, frame):
        if requested:
            raise KeyboardInterrupt
        requested.append(number)
        log.warning("stopping after this step, with a checkpoint; once more to stop at once")

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


def _tensorboard(path: Path, purge_step: int | None):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(path), purge_step=purge_step)


def _write(folder: RunFolder, writer, values: dict) -> None:
    folder.log(values)
    for name, value in values.items():
        if name != "step":
            writer.add_scalar(name, value, values["step"])
