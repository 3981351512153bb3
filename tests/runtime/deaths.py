"""A process that dies at one moment of writing: at the n-th call that changes the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.runtime.moments import Moments

CALLS = ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "link")


def dies_at(number: int, action: Callable[[], object]) -> bool:
    """Runs ``action`` in a child that dies before call ``number`` of ``CALLS``; whether it came to that.

    A death runs no ``finally``. Raises AssertionError if the child ended in an error.
    """
    child = os.fork()
    if child == 0:
        try:
            with Moments("/", number, calls=CALLS):
                action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "the child ended in an error"
    return code != 0


def each_death(action: Callable[[], object]):
    """Yields after every death of ``action`` that is possible: 1, 2, …"""
    moment = 1
    while dies_at(moment, action):
        yield moment
        moment += 1
    assert moment > 3, "too few calls: does the action still write by way of os?"
