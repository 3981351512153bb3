"""Every call that changes the disk is a moment at which a process can die, or at which the system can refuse.

``Moments`` replaces the functions of Python by which files are opened for writing, written, synced, renamed, linked and
removed. It counts their calls, and lets one of them go wrong. Writes that do not go through
Python are not seen; for these there is ``RLIMIT_FSIZE``.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from unittest import mock

Fault = Literal["dies", "full", "broken"]
Moment = tuple[str, str, int]  # the call, the file's name (``shown``), how many such calls there were before
MAKES = ("open", "mkdir", "write", "fsync", "replace", "rename", "link", "symlink")  # a full disk can refuse these
STAYS_REFUSED = ("open", "mkdir", "write", "fsync")  # a rename needs no new room
OTHERS = ("unlink", "remove", "rmdir", "utime", "truncate", "ftruncate")
CALLS = (*MAKES, *OTHERS)
_HEX = re.compile(r"\.[0-9a-f]{8}\.(tmp|old)")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")


def shown(path: str, below: str) -> str:
    """A path without what differs from run to run: the folder before it, random letters, times."""
    path = path.removeprefix(below).lstrip("/")
    return _EVENTS.sub("events", _HEX.sub(r".*.\1", path))


class Moments:
    """In the ``with`` block, ``calls`` on files in the folder ``below`` are counted. The one that is the moment ``at``
    (or the number ``at``, from 1) goes wrong:

    - ``dies``: the process kills itself before it, or half through it where it writes.
    - ``full``: no space is left, from this call on.
    - ``broken``: this one call is an error of input and output.
    """

    def __init__(
        self, below: str | Path, at: Moment | int | None = None, fault: Fault = "dies", calls: Collection[str] = CALLS
    ):
        self.below, self.at, self.fault, self.calls = os.path.realpath(below), at, fault, calls
        self.passed: list[Moment] = []
        self.reached = False
        self._counts: Counter = Counter()
        self._exit = ExitStack()

    def __enter__(self) -> Moments:
        for name in (*MAKES[4:], *OTHERS, "mkdir", "fsync"):
            self._patch(os, name, self._counted(name, getattr(os, name)))
        self._patch(os, "open", self._os_open(os.open))
        self._patch(os, "write", self._os_write("write", os.write))
        self._patch(os, "pwrite", self._os_write("write", os.pwrite))
        opened = self._open(io.open)
        self._patch(io, "open", opened)
        self._patch(builtins, "open", opened)
        return self

    def __exit__(self, *problem) -> None:
        self._exit.close()

    def _patch(self, module, name: str, function) -> None:
        self._exit.enter_context(mock.patch.object(module, name, function))

    def pass_one(self, call: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """Counts one call, which may go wrong. ``half``: does half of what the call does."""
        if call not in self.calls:
            return
        place = call, shown(path, self.below)
        moment = (*place, self._counts[place])
        self._counts[place] += 1
        self.passed.append(moment)
        is_now = self.at in (moment, len(self.passed)) and not self.reached
        stays = self.fault == "full" and self.reached and call in STAYS_REFUSED
        self.reached |= is_now
        if not (is_now or stays):
            return
        half()
        if self.fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if self.fault == "full" else errno.EIO
        raise OSError(number, os.strerror(number), path)

    def path_of(self, file, dir_fd: int | None = None) -> str | None:
        """The full path of a path or descriptor, if it lies in the folder."""
        try:
            if isinstance(file, int):
                path = os.readlink(f"/proc/self/fd/{file}")
            elif dir_fd is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(file))
            else:
                path = os.path.abspath(os.fsdecode(file))
        except (OSError, TypeError):
            return None
        return path if path == self.below or path.startswith(self.below.rstrip("/") + "/") else None

    def _counted(self, name: str, call: Callable) -> Callable:
        def made(*arguments, **options):
            last = arguments[1] if name in ("replace", "rename", "link", "symlink") else arguments[0]
            path = self.path_of(last, options.get("dir_fd", options.get("dst_dir_fd")))
            if path is not None:
                self.pass_one(name, path)
            if name != "fsync" or path is None:  # a process that dies does not take the system's memory with it
                return call(*arguments, **options)

        return made

    def _os_open(self, call: Callable) -> Callable:
        def made(path, flags, *arguments, **options):
            found = self.path_of(path, options.get("dir_fd"))
            if found is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.pass_one("open", found)
            return call(path, flags, *arguments, **options)

        return made

    def _os_write(self, name: str, call: Callable) -> Callable:
        def made(descriptor, data, *arguments):
            if (path := self.path_of(descriptor)) is not None:
                self.pass_one(name, path, lambda: call(descriptor, data[: len(data) // 2], *arguments))
            return call(descriptor, data, *arguments)

        return made

    def _open(self, call: Callable) -> Callable:
        moments = self

        class Raw(io.FileIO):
            def write(self, data):
                def half():
                    io.FileIO.write(self, bytes(data)[: len(data) // 2])

                moments.pass_one("write", self.path, half)
                return super().write(data)

        def made(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *more, **options):
            path = self.path_of(file) if set(mode) & set("wax+") else None
            if path is None:
                return call(file, mode, buffering, encoding, errors, newline, *more, **options)
            if not isinstance(file, int):
                self.pass_one("open", path)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), *more, **options)
            raw.path = path
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return made
