"""Reads batches ahead, in worker processes. If a decoder kills its worker, only that one video counts as damaged.

The batches depend only on the dataset and the requested order, never on the number of workers.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from evl.errors import ConfigError, RunError
from evl.runtime.parallel import end_if_only_starting, not_begun, refuse_too_many, starting_workers, time_limit

log = logging.getLogger("evl")
CRASHED = "kills or hangs the process that decodes it"
MAX_TRIES = 2  # more than one, because a worker may also die of other causes, such as a lack of memory


@dataclass(eq=False)
class StepSampler(Sampler):
    """Yields the batches of (epoch, index) of one process, from ``first_step`` up to, not including, ``last_step``.

    The samples of a step follow from seed and step alone. With n samples, position p of the endless order is sample
    permutation(seed, p // n)[p % n]. Each micro-batch of each process takes its own part of the step's ``batch_size``
    positions. So the global batch is the same for any number of processes and micro-batches, and a run can resume at
    any step. With ``repeats`` r, each sample of the order takes r positions, with the epochs r·e to r·e + r − 1 in
    place of e, so that each is another draw.
    """

    num_samples: int
    _: KW_ONLY
    batch_size: int
    first_step: int
    last_step: int
    seed: int
    accumulation: int = 1
    repeats: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self):
        parts = self.world_size * self.accumulation
        if self.batch_size % parts:
            raise ConfigError(
                f"training.batch_size {self.batch_size} cannot be split over {self.world_size} processes × "
                f"{self.accumulation} micro-batches; take a multiple of {parts}"
            )
        self._steps, self._micro = range(self.first_step, self.last_step), self.batch_size // parts
        self._permutation: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return len(self._steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self._steps:
            for a in range(self.accumulation):
                start = step * self.batch_size + (a * self.world_size + self.rank) * self._micro
                yield [self._at(position) for position in range(start, start + self._micro)]

    def _at(self, position: int) -> tuple[int, int]:
        position, draw = divmod(position, self.repeats)
        epoch, place = divmod(position, self.num_samples)
        if self._permutation[0] != epoch:
            self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        return epoch * self.repeats + draw, int(self._permutation[1][place])


def read_batches(
    dataset: Dataset,
    batches: Iterable[Sequence],
    *,
    num_workers: int,
    device: torch.device,
    collate: Callable[[list], object],
) -> Iterator:
    """Yields ``collate([dataset[key] for key in batch])`` for each batch, in order. The workers start at once.

    A sample whose worker dies twice is not tried again: ``dataset.failed(key, reason)`` takes its place. Without
    workers, a decoder that crashes ends the program. Torch's global random generator is not used.

    Args:
        dataset: Besides ``dataset[key]`` it has ``samples``, ``sample_of(key)`` (the number of the key's sample), and
            ``failed(key, reason)``.
        batches: The keys of each batch.
        num_workers: The number of worker processes; 0 reads in this process.
        device: Batches for a CUDA device are pinned in memory.
        collate: Makes a batch of a list of items.

    Raises RunError if workers die again and again, or while they start, as in a script without a ``__main__`` guard;
    ConfigError for more than ``MOST_WORKERS``.
    """
    refuse_too_many(num_workers)
    if num_workers == 0:
        return iter(_loader(dataset, batches, 0, device, collate))
    end_if_only_starting()
    guarded = _Guarded(dataset, num_workers)
    running = _start(_loader(guarded, batches, num_workers, device, collate))
    return _survive(guarded, running, batches, num_workers, device, collate)


def default_num_workers() -> int:
    """Returns one worker per core that this process may use, divided by the processes of a machine; at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _survive(guarded: _Guarded, running: Iterator, batches, num_workers: int, device, collate) -> Iterator:
    """Yields the batches of ``running``. When a worker dies, it starts new workers for the batches that are left."""
    done, unexplained = 0, 0
    while True:
        try:
            for batch in running:
                yield batch
                done += 1
                unexplained = 0
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):  # an exception inside a living worker
                raise
            guarded.refuse_if_not_begun(running)
            blamed = guarded.blame_dead_workers()
        finally:
            _end_workers(running)  # also so that they cannot write into the memory of new ones
        unexplained += not blamed
        if unexplained > MAX_TRIES:
            raise RunError(
                "the worker processes that read videos die again and again, at no particular video. Perhaps there is "
                "too little memory: set data.num_workers to a smaller number, or to 0 for no workers"
            )
        where = f" at {', '.join(blamed)}" if blamed else ""
        log.warning("a worker process that reads videos died%s; new workers go on", where)
        guarded.reading.fill_(-1)
        guarded.pids.fill_(0)
        rest = itertools.islice(batches, done, None)
        running = _start(_loader(guarded, rest, num_workers, device, collate))


def _end_workers(running: Iterator) -> None:
    """Ends the workers of a loader's iterator now. Where an exception keeps it, the garbage collector would do it, and
    wait 10 seconds for workers that nobody tells to end: it closes their queues first."""
    running._shutdown_workers()  # torch has no public way


class _Guarded(Dataset):
    """A dataset whose workers write into shared memory that they have begun, and which sample they are reading."""

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
        """Raises RunError if a worker of the iterator ``running`` ended by itself before it began."""
        began = set(self.pids.tolist())
        for process in getattr(running, "_workers", ()):  # torch has no public way to their exit codes
            if process.pid not in began and (process.exitcode or 0) > 0:  # negative: killed, for example out of memory
                raise not_begun() from None

    def blame_dead_workers(self) -> list[str]:
        """Counts one failed try for each sample that a dead worker was reading, and returns the paths."""
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
        context = multiprocessing.get_context("forkserver")  # a plain fork breaks the decoder's threads
        more = getattr(getattr(dataset.dataset, "transform", None), "imports", ())
        context.set_forkserver_preload(["evl.data.dataset", "evl.video.augment", *more])
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
    """Returns the loader's iterator, with its workers started.

    The workers ignore Ctrl-C and SIGTERM: the main process handles both, and needs one more batch and a checkpoint. The
    main process learns of a worker's death when it asks for a batch, not through a signal in the middle of other code.
    """
    on_death = signal.getsignal(signal.SIGCHLD)
    try:
        with starting_workers(signal.SIGINT, signal.SIGTERM):
            running = iter(loader)  # a name, so that it lives until its workers end, if a signal comes in this time
    except (BrokenPipeError, EOFError):  # a worker ended before it had read its task
        raise not_begun() from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_death)
    return running


def _start_worker(worker: int) -> None:
    torch.utils.data.get_worker_info().dataset.pids[worker] = os.getpid()
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    # The first SIGTERM may have been sent to the whole process group, so it is ignored. A second one ends the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_with_the_main_process() -> None:
    """Ends the worker when the main process has ended, in whatever way. PyTorch only watches the worker's parent, and
    that is the fork server, which lives as long as its workers."""
    multiprocessing.parent_process().join()
    os._exit(1)
