"""Work on many files in worker processes, so that a decoder that crashes its process loses one file only."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker

from evl.errors import ConfigError
from evl.runtime.main_guard import end_if_only_starting, not_begun, program_from_stdin
from evl.runtime.stopping import stopped_later

MOST_WORKERS = 1024


def refuse_too_many(num_workers: int) -> None:
    """Raises ConfigError for a number of worker processes that no machine should start."""
    if not 0 <= num_workers <= MOST_WORKERS:
        raise ConfigError(f"{num_workers} worker processes: expected a number from 0 to {MOST_WORKERS}")


@dataclass(frozen=True)
class Crash:
    """The result of an item whose process died. A negative ``exit_code`` is the negated number of a signal."""

    exit_code: int | None

    @property
    def reason(self) -> str:
        if self.exit_code == -signal.SIGALRM:
            return "hangs the decoder"
        return f"the decoder crashed (exit code {self.exit_code})"


@contextlib.contextmanager
def time_limit(path: str):
    """Ends this worker process if the block takes longer than five minutes plus one second per 100 kB of the file.

    A decoder that hangs never returns to Python, so no exception could stop it.
    """
    try:
        size = os.path.getsize(path)
    except OSError:
        size = 0
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(300 + size // 100_000)
    try:
        yield
    finally:
        signal.alarm(0)


def each_in_process(function: Callable, items: Iterable, num_workers: int) -> Iterator[tuple]:
    """Yields (item, ``function(item)``) for all items, as they finish; the result is a ``Crash`` if the process died.

    ``function`` must be at the top level of a module; items and results must be picklable. An exception in it is raised
    here and ends the work. Closing the iterator ends all processes, even during an item. Raises RunError if processes
    end while they start, before they have an item: in a script without a ``__main__`` guard, or without memory.
    ConfigError for more than ``MOST_WORKERS``.
    """
    end_if_only_starting()
    refuse_too_many(num_workers)
    todo, workers, begun = iter(items), {}, set()
    try:
        while True:
            while len(workers) < num_workers and (item := next(todo, _END)) is not _END:
                pipe, process = _start(function)
                workers[pipe] = process, item
                _send(pipe, item)
            if not workers:
                return
            for pipe in connection.wait(list(workers)):
                process, item = workers[pipe]
                try:
                    good, result = pipe.recv()
                except (EOFError, OSError):
                    process.join()
                    if pipe not in begun:  # so no item was the cause
                        raise not_begun(process.exitcode) from None
                    pipe.close()
                    del workers[pipe]  # the loop starts another process for the next item
                    yield item, Crash(process.exitcode)
                    continue
                begun.add(pipe)
                if good is None:
                    continue
                if not good:
                    raise result
                if (following := next(todo, _END)) is _END:
                    del workers[pipe]
                    pipe.close()  # which ends the process
                    process.join()
                else:
                    workers[pipe] = process, following
                    _send(pipe, following)
                yield item, result
    finally:
        for pipe, (process, _) in workers.items():
            process.kill()
            process.join()
            pipe.close()


_END = object()


def _send(pipe, item) -> None:
    with contextlib.suppress(OSError):  # the other process is dead; receiving from it will fail and be handled
        pipe.send(item)


def _start(function: Callable):
    context = multiprocessing.get_context("forkserver")  # fork is not safe together with the decoder's threads
    context.set_forkserver_preload([function.__module__])  # of the first call; later ones import when they start
    pipe, end = context.Pipe()
    # Ctrl-C sends SIGINT to the whole process group, but only the main process should handle it. So workers start with
    # the signal blocked. (Starting the resource tracker unblocks the signal, so it is started before.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = context.Process(target=_work, args=(end, function), daemon=True)
        with program_from_stdin(), stopped_later():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    end.close()
    return pipe, process


def _work(pipe, function: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _send(pipe, (None, "begun"))
    while True:
        try:
            item = pipe.recv()
        except EOFError:  # the main process closed the pipe
            return
        try:
            answer = True, function(item)
        except OSError as error:  # such as SaveError, whose message is enough for the user
            answer = False, error
        except Exception:
            answer = False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        try:
            pipe.send(answer)
        except OSError:
            return
