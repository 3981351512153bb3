"""The waiting room between the threads that read sources and the one that computes: bounded, the newest frames stay."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

MOST_WAITING = 32  # frames of a source


@dataclass
class Shown:
    """A frame. ``arrived``: when it was read, by ``time.monotonic``. ``left_out``: frames before it that were left
    out, because they were damaged or the model was too slow."""

    time_seconds: float
    rgb: Callable[[], np.ndarray]
    arrived: float
    left_out: int = 0


@dataclass(frozen=True)
class Opened:
    """The frames of ``name`` follow. ``resumes``: the same source again, after a break."""

    name: str
    arrived: float
    resumes: bool = False


@dataclass(frozen=True)
class Closed:
    """No frames follow, until it is opened again. ``is_last``: it will not be."""

    state: Literal["lost", "ended", "failed"]
    text: str
    is_last: bool = False


@dataclass(frozen=True)
class Said:
    """Something about a source that people should know. ``name``: of a file in a folder."""

    state: str
    text: str
    name: str | None = None


Item = Shown | Opened | Closed | Said


@dataclass
class Counts:
    """What a thread that reads has counted. ``seconds``: of processor time, without the decoder's own threads."""

    frames: int = 0
    left_out: int = 0
    damaged: int = 0
    breaks: int = 0
    seconds: float = 0.0


class WaitingRoom:
    """Items of several sources, in the order in which each put them.

    A source whose frames come when they happen (``is_paced``) loses its oldest waiting frame when there are too many;
    any other waits until there is room.
    """

    def __init__(self, most: int = MOST_WAITING):
        self.most = most
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[Item]] = {}
        self.is_closed = False

    def put(self, key: int, item: Item, counts: Counts, *, is_paced: bool) -> None:
        with self._changed:
            while isinstance(item, Shown) and not self.is_closed:
                waiting = self._waiting.get(key, deque())
                frames = [one for one in waiting if isinstance(one, Shown)]
                if len(frames) < self.most:
                    break
                if not is_paced:
                    self._changed.wait(0.5)
                    continue
                waiting.remove(frames[0])
                after = frames[1] if len(frames) > 1 else item
                after.left_out += 1 + frames[0].left_out
                counts.left_out += 1
            self._waiting.setdefault(key, deque()).append(item)
            self._changed.notify_all()

    def take(self, seconds: float) -> list[tuple[int, Item]]:
        """Everything that waits, by source; where there is nothing, it waits up to ``seconds`` for it."""
        until = time.monotonic() + seconds
        with self._changed:
            while not any(self._waiting.values()) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            taken = [(key, item) for key, waiting in sorted(self._waiting.items()) for item in waiting]
            self._waiting.clear()
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Lets go of all who wait for room."""
        self.is_closed = True
        with self._changed:
            self._changed.notify_all()
