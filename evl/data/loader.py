"""Batches, in order, read ahead by processes that may die: a decoder that kills its process is one damaged video.

What comes out depends on the dataset and the order asked for only, never on how many workers there are.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from evl.errors import ConfigError, RunError
from evl.runtime.main_guard import end_if_only_starting, not_begun, program_from_stdin
from evl.runtime.parallel import time_limit

log = logging.getLogger("evl")
CRASHED = "kills or hangs the process that decodes it"
MAX_TRIES = 2  # a worker may also die of something else, such as a lack of memory


class StepSampler(Sampler):
    """Batches of (epoch, index) for one process, from ``first_step`` to ``last_step``.

    The samples of a step follow from seed and step alone: position p of the endless stream is sample
    permutation(seed, p // n)[p % n]. Micro-batch a of process r takes its part of the step's ``batch_size``
    positions, so any number of processes and micro-batches sees the same global batch, and a run resumes anywhere.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        first_step: int,
        last_step: int,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        parts = world_size * accumulation
        if batch_size % parts:
            raise ConfigError(
                f"training.batch_size {batch_size} cannot be split over {world_size} processes × {accumulation} "
                f"micro-batches; take a multiple of {parts}"
            )
        self.num_samples, self.seed = num_samples, seed
        self.batch_size, self.micro = batch_size, batch_size // parts
        self.steps = range(first_step, last_step)
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        self._permutation: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            for a in range(self.accumulation):
                start = step * self.batch_size + (a * self.world_size + self.rank) * self.micro
                yield [self._at(position) for position in range(start, start + self.micro)]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.num_samples)
        if self._permutation[0] != epoch:
            self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        return epoch, int(self._permutation[1][place])


def read_batches(
    dataset: Dataset,
    batches: Iterable[Sequence],
    *,
    num_workers: int,
    device: torch.device,
    collate: Callable[[list], object],
) -> Iterator:
    """``collate([dataset[key] for key in batch])`` of each batch, in order, read ahead by workers, which start now.

    ``dataset.samples`` has the files, ``dataset.sample_of(key)`` the number of a key's, and ``dataset.failed(key,
    reason)`` stands for what could not be read because its worker died: tried twice, then not again. Without workers
    nothing of this can be survived. Draws nothing from torch's global generator.

    Raises RunError where workers end again and again, or while they start: in a script without a ``__main__`` guard.
    """
    if num_workers == 0:
        return iter(_loader(dataset, batches, 0, device, collate))
    end_if_only_starting()
    guarded = _Guarded(dataset, num_workers)
    running = _start(_loader(guarded, batches, num_workers, device, collate))
    return _survive(guarded, running, batches, num_workers, device, collate)


def default_num_workers() -> int:
    """One worker a core that this process may use, shared by the processes of a machine, at most 16 a process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _survive(guarded: _Guarded, running: Iterator, batches, num_workers: int, device, collate) -> Iterator:
    """Starts again, behind what was given already, when a worker died."""
    done, lost = 0, 0
    while True:
        try:
            for batch in running:
                yield batch
                done += 1
                lost = 0
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):  # what a worker raised is not its death
                raise
        guarded.refuse_if_not_begun(running)
        blamed = guarded.blame_the_dead()
        lost += not blamed
        if lost > MAX_TRIES:
            raise RunError(
                "processes that read videos die again and again, none at a video in particular: is there too little "
                "memory? Take fewer of them (data.num_workers), or none (0)"
            )
        log.warning("a process that reads videos died%s; going on", f" at {', '.join(blamed)}" if blamed else "")
        running = None  # the other workers end now: they must not write where new ones will
        guarded.reading.fill_(-1)
        guarded.pids.fill_(0)
        rest = _From(batches, done)
        running = _start(_loader(guarded, rest, num_workers, device, collate))


class _From:
    """``batches`` without the first ``start``."""

    def __init__(self, batches: Iterable[Sequence], start: int):
        self.batches, self.start = batches, start

    def __iter__(self) -> Iterator[Sequence]:
        return itertools.islice(iter(self.batches), self.start, None)


class _Guarded(Dataset):
    """A dataset whose workers note, in memory shared with the main process, that they began, and which sample they are
    at."""

    def __init__(self, dataset: Dataset, num_workers: int):
        self.dataset = dataset
        self.pids = torch.zeros(num_workers, dtype=torch.long).share_memory_()
        self.reading = torch.full((num_workers,), -1).share_memory_()
        self.tries = torch.zeros(len(dataset.samples), dtype=torch.uint8).share_memory_()

    def __getitem__(self, key):
        worker, sample = torch.utils.data.get_worker_info().id, self.dataset.sample_of(key)
        if self.tries[sample] >= MAX_TRIES:
            return self.dataset.failed(key, CRASHED)
        self.reading[worker] = sample
        try:
            with time_limit(self.dataset.samples[sample].path):
                return self.dataset[key]
        finally:
            self.reading[worker] = -1

    def refuse_if_not_begun(self, running: Iterator) -> None:
        """RunError if a worker of this loader's iterator ended by itself before it began."""
        began = set(self.pids.tolist())
        for process in getattr(running, "_workers", ()):  # there is no public way to their exit codes
            if process.pid not in began and (process.exitcode or 0) > 0:  # negative: killed, as for want of memory
                raise not_begun()

    def blame_the_dead(self) -> list[str]:
        """Counts a try against each sample at which a worker died; their paths."""
        blamed = []
        for pid, sample in zip(self.pids.tolist(), self.reading.tolist(), strict=True):
            if sample >= 0 and not _is_alive(pid):
                self.tries[sample] += 1
                blamed.append(self.dataset.samples[sample].path)
        self.reading.fill_(-1)
        return blamed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _loader(dataset, batches, num_workers: int, device: torch.device, collate) -> DataLoader:
    context = None
    if num_workers:
        context = multiprocessing.get_context("forkserver")  # fork and the decoder's threads do not mix
        context.set_forkserver_preload(["evl.data.dataset", "evl.video.augment"])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
    )


def _start(loader: DataLoader) -> Iterator:
    """The loader's iterator. Its workers leave Ctrl-C and SIGTERM to the main process, which wants a last batch and a
    checkpoint; and their death is told where a batch is asked for, not in the midst of whatever runs."""
    # processes started here are born deaf to both signals (the resource tracker is, too, but would unblock them for us)
    resource_tracker.ensure_running()
    on_death = signal.getsignal(signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with program_from_stdin():
            return iter(loader)
    except (BrokenPipeError, EOFError):  # one ended before it had read what it is for
        raise not_begun() from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_death)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    torch.utils.data.get_worker_info().dataset.pids[worker] = os.getpid()
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    # the first SIGTERM may be the group's; a second one ends the worker, so that nothing can hang on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_with_the_main_process() -> None:
    """However that ends: PyTorch's workers look whether their parent lives, but theirs is the fork server, which lives
    as long as they do."""
    multiprocessing.parent_process().join()
    os._exit(1)
