"""A process that dies at one moment of writing: at the n-th call that changes the disk."""

from __future__ import annotations

import os
from collections.abc import Callable

CALLS = ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "link")


def dies_at(moment: int, action: Callable[[], object]) -> bool:
    """Runs ``action`` in a child that dies before call number ``moment`` of ``CALLS``; whether it came to that.

    A death runs no ``finally``. Raises AssertionError if the child ended in an error.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call):
            def made(*arguments, **options):
                nonlocal count
                count += 1
                if count == moment:
                    os._exit(77)
                return call(*arguments, **options)

            return made

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 77), "the child ended in an error"
    return code == 77


def each_death(action: Callable[[], object]):
    """Yields after every death of ``action`` that is possible: 1, 2, …"""
    moment = 1
    while dies_at(moment, action):
        yield moment
        moment += 1
    assert moment > 3, "too few calls: does the action still write by way of os?"
