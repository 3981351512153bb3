"""Work on many files by processes of their own, so that a decoder that kills its process takes one file with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker

from evl.runtime.main_guard import end_if_only_starting, not_begun, program_from_stdin


@dataclass(frozen=True)
class Crash:
    """What became of an item whose process died. ``exit_code``: negative, the number of a signal."""

    exit_code: int | None

    @property
    def reason(self) -> str:
        if self.exit_code == -signal.SIGALRM:
            return "hangs the decoder"
        return f"the decoder crashed (exit code {self.exit_code})"


@contextlib.contextmanager
def time_limit(path: str):
    """Ends this process, which must be a worker, if a file hangs it inside a decoder, where no exception can reach:
    after five minutes, and a second for each 100 kB."""
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
    """(item, ``function(item)``) of all items, as they get ready; a ``Crash`` for the result where a process died.

    ``function`` lies at the top of a module; items and results can be pickled. What it raises is raised here and ends
    the work. Processes are gone when the iterator is closed, even in the middle of an item. RunError where they end
    while they start: in a script without a ``__main__`` guard.
    """
    end_if_only_starting()
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
                    if pipe not in begun and process.exitcode > 0:  # negative: killed, as for want of memory
                        raise not_begun() from None
                    pipe.close()
                    del workers[pipe]  # another takes its place if there is more to do
                    yield item, Crash(process.exitcode)
                    continue
                begun.add(pipe)
                if good is None:
                    continue
                if not good:
                    raise result
                if (following := next(todo, _END)) is _END:
                    del workers[pipe]
                    pipe.close()  # tells it to end
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
    with contextlib.suppress(OSError):  # the process is dead already, which the waiting side will find out
        pipe.send(item)


def _start(function: Callable):
    context = multiprocessing.get_context("forkserver")  # fork and the decoder's threads do not mix
    context.set_forkserver_preload(["evl.collections.copy_video"])
    pipe, end = context.Pipe()
    # Ctrl-C goes to the whole group, but is the main process's to handle: processes are born deaf to it. (The resource
    # tracker is, too, but would unblock it for us.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = context.Process(target=_work, args=(end, function), daemon=True)
        with program_from_stdin():
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
        except EOFError:  # no more work, or nobody who wants it
            return
        try:
            answer = True, function(item)
        except OSError as error:  # SaveError among them: the user's to solve, told in one sentence
            answer = False, error
        except Exception:
            answer = False, RuntimeError(f"in a process of its own:\n{traceback.format_exc()}")
        try:
            pipe.send(answer)
        except OSError:
            return
