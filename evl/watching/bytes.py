"""Bytes that are not all there yet: a file that grows, and a pipe, as objects that PyAV reads from."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable

from evl.errors import VideoError, one_line
from evl.watching.address import PIPE

POLL = 0.1  # seconds between two looks


class GrowingFile:
    """``read(n)`` waits at the end of the file until it grows.

    The file has ended if it has not grown for ``timeout`` seconds, if another file takes its place, or if it shrinks;
    then ``is_replaced`` is True.
    """

    def __init__(self, path: str, timeout: float, stop: threading.Event):
        self.name, self.timeout, self.stop = path, timeout, stop
        self.is_replaced = self._is_over = False
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (``close`` closes it)
        except OSError as error:
            raise VideoError(path, f"cannot be opened ({error.strerror or one_line(error)})") from None

    def read(self, count: int) -> bytes:
        since = time.monotonic()
        while not self._is_over and not self.stop.is_set():
            if data := self._file.read(count):
                return data
            if self._is_other():
                self.is_replaced = True
                break
            if time.monotonic() - since > self.timeout:
                break
            self.stop.wait(POLL)
        self._is_over = True  # libav asks several times
        return b""

    def _is_other(self) -> bool:
        try:
            there, own = os.stat(self.name), os.fstat(self._file.fileno())
        except OSError:
            return False  # it was removed: what is open may still grow
        is_same = (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev)
        return not is_same or own.st_size < self._file.tell()

    def close(self) -> None:
        self._file.close()


class Pipe:
    """``read(n)`` waits for bytes. A pipe cannot be opened again, so a silence is only reported, by ``on_silence``."""

    def __init__(self, path: str, timeout: float, stop: threading.Event, on_silence: Callable[[float], None]):
        self.name, self.timeout, self.stop, self.on_silence = path, timeout, stop, on_silence
        self._owns = path != PIPE
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if self._owns else sys.stdin.fileno()
        except (OSError, AttributeError, ValueError) as error:
            raise VideoError(path, f"cannot be opened ({one_line(error)})") from None

    def read(self, count: int) -> bytes:
        since, is_told = time.monotonic(), False
        while not self.stop.is_set():
            if select.select([self._fd], [], [], POLL)[0]:
                return os.read(self._fd, count)
            silent = time.monotonic() - since
            if silent > self.timeout and not is_told:
                is_told = True
                self.on_silence(silent)
        return b""

    def close(self) -> None:
        if self._owns:
            os.close(self._fd)
