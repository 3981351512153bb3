"""Worker processes: work on many files, so that a decoder that crashes its process loses one file only; what Ctrl-C and
SIGTERM do; and a clear error for a script without ``if __name__ == "__main__":``.

Python starts each worker process by running the main script again, under another name. Without that line, the worker
would start the training again instead of reading videos.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker

from evl.errors import ConfigError, RunError

_LINES = 'if __name__ == "__main__":\n        main()'
MOST_WORKERS = 1024
_END = object()


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM, which batch systems send, does what Ctrl-C does."""

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first Ctrl-C or SIGTERM calls ``stop``; the next one does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # else it is not Python's, and cannot be put back
                signal.signal(number, handler)

    def once(number, frame) -> None:
        restore()
        stop()

    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, once)
    try:
        yield
    finally:
        restore()


@contextmanager
def stopped_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM in this block count when it is done, for steps that must not be left half-way.

    Blocking the signals is not enough: the system gives them to another thread, and Python runs its handler in this
    one.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not None:  # None: a handler that is not Python's, which cannot be put back
                before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came[:1]:
        signal.raise_signal(number)


def end_workers() -> None:
    """Ends the worker processes of this one at once. Those that are still starting would print an error when they find
    that what they share with this process is gone."""
    for process in multiprocessing.active_children():
        process.kill()


def end_if_only_starting() -> None:
    """Ends this process if it is a worker process in which Python still runs the main script to start it.

    Called at the beginning of a run, and before worker processes are started. The main process then sees that its
    worker ended, and raises ``not_begun``.
    """
    # Python checks the same attribute before it refuses to start processes; it has no public name
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_message())


@contextmanager
def program_from_stdin() -> Iterator[None]:
    """Lets a program from standard input (python - <<EOF) start processes within this block.

    Without it, Python would search for a file named <stdin> and run it.
    """
    main, script = sys.modules["__main__"], _script()
    hidden = vars(main).pop("__file__", None) if script is None else None
    try:
        yield
    finally:
        if hidden is not None:
            main.__file__ = hidden


def not_begun(exit_code: int | None = None) -> RunError:
    """The error for worker processes that ended while they were started. A negative ``exit_code`` is the negated number
    of the signal that ended one."""
    if exit_code is None or exit_code >= 0:
        return RunError(_message())
    return RunError(
        f"a process that reads videos was ended by {signal.Signals(-exit_code).name} while it started, before its "
        "first video; perhaps there is too little memory: use a smaller `num_workers`"
    )


def _script() -> str | None:
    """The file that Python runs; None in a notebook, with ``python -c``, or for a program from standard input."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return None if script is None or script.startswith("<") else script


def _message() -> str:
    script = _script()
    if script is None:  # Python has no script to run again
        return (
            "the processes that read videos ended while they started; the reason is printed above this error. To read "
            "videos in the main process, set data.num_workers=0"
        )
    return (
        f'{script} needs if __name__ == "__main__": around its code. evl reads videos in other processes, and each of '
        "them runs the script from its first line. Put the script's code into a function main(), and write at its "
        f"end:\n\n    {_LINES}\n\n(If the script has these lines, code above them ended those processes; the reason "
        "is printed above this error.)"
    )


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


@contextmanager
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


@contextmanager
def starting_workers(*blocked: signal.Signals) -> Iterator[None]:
    """For the start of worker processes: they inherit the ``blocked`` signals, and a stop counts after the block.

    Ctrl-C sends SIGINT to the whole process group, but only the main process should handle it.
    """
    resource_tracker.ensure_running()  # its start would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with program_from_stdin(), stopped_later():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _send(pipe, item) -> None:
    with contextlib.suppress(OSError):  # the other process is dead; receiving from it will fail and be handled
        pipe.send(item)


def _start(function: Callable):
    context = multiprocessing.get_context("forkserver")  # fork is not safe together with the decoder's threads
    context.set_forkserver_preload([function.__module__])  # of the first call; later ones import when they start
    pipe, end = context.Pipe()
    process = context.Process(target=_work, args=(end, function), daemon=True)
    with starting_workers(signal.SIGINT):
        process.start()
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
