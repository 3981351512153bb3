"""What Ctrl-C and SIGTERM do to a command."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
