"""Missing is not damaged: a video that is away for now, with its disk, share or network, is asked for again."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from evl.errors import VideoError

Value = TypeVar("Value")
NO_FILE = "no such file"  # the reason in a reader's VideoError for a file that does not exist
PAUSES = (0.25, 0.75, 2.25)  # seconds between the questions for one video
MOST_IN_VAIN = 3  # after so many waits that did not help, a process does not wait ...
RESTS_SECONDS = 60.0  # ... for so long, because a list may have thousands of videos that are gone for good
_NAMES = (
    "ENOENT", "ENOTDIR", "EIO", "ESTALE", "ETIMEDOUT", "ENXIO", "ENODEV", "ENOTCONN", "ENETDOWN", "ENETUNREACH",
    "EHOSTDOWN", "EHOSTUNREACH", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EREMOTEIO", "ENOMEDIUM", "ENOLINK",
    "EAGAIN", "EBUSY",
)  # fmt: skip
AWAY = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))  # the system's numbers for it


def os_reason(error: OSError | ValueError) -> str:
    """The reason of a VideoError for an error of the system."""
    if isinstance(error, FileNotFoundError):
        return NO_FILE
    return f"cannot be read ({(getattr(error, 'strerror', None) or str(error)).lower()})"


_REASONS = frozenset(os_reason(OSError(number, os.strerror(number))) for number in AWAY)
# a decoder says this of a file that is broken, too; so it is asked again, but then the file counts as damaged
_PERHAPS = f"cannot be decoded ({os.strerror(errno.EIO).lower()})"


def is_missing(reason: str) -> bool:
    """Whether a VideoError's reason says that the video is away, rather than damaged."""
    return reason in _REASONS


def unreadable(path: str) -> OSError | None:
    """The system's error while it reads a plain file whole, or None."""
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        return error
    return None


class _Patience:
    """How often this process waited in vain, and when it did last."""

    def __init__(self):
        self.in_vain, self.last = 0, 0.0

    def pauses(self) -> Iterator[float]:
        """The seconds to wait before each further question; none if waiting did not help a moment ago."""
        if self.in_vain >= MOST_IN_VAIN and time.monotonic() - self.last < RESTS_SECONDS:
            return iter(())
        return iter(PAUSES)

    def note(self, *, has_helped: bool) -> None:
        self.in_vain, self.last = (0 if has_helped else self.in_vain + 1), time.monotonic()


_patience = _Patience()


def ask_again(ask: Callable[[], Value], is_answer: Callable[[Value], bool]) -> Value:
    """Returns ``ask()``; as long as it is no answer, it asks a few times more, with growing pauses."""
    value, waited = ask(), False
    for pause in _patience.pauses():
        if is_answer(value):
            break
        waited = True
        time.sleep(pause)
        value = ask()
    if waited:
        _patience.note(has_helped=is_answer(value))
    return value


def read_patiently(read: Callable[[], Value]) -> Value:
    """Returns ``read()``; a video that is missing is asked for again. Raises the VideoError of the last question."""

    def ask() -> Value | VideoError:
        try:
            return read()
        except VideoError as error:
            return error

    def is_answer(value: Value | VideoError) -> bool:
        return not (isinstance(value, VideoError) and (is_missing(value.reason) or value.reason == _PERHAPS))

    value = ask_again(ask, is_answer)
    if isinstance(value, VideoError):
        raise value
    return value
