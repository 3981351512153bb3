"""A thread that reads one source: it opens it, again if need be, and puts its frames into the waiting room."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from evl.errors import VideoError
from evl.watching.address import Address
from evl.watching.folder import REST, FolderScan
from evl.watching.opening import Settings, open_source, pictures
from evl.watching.room import Closed, Counts, Item, Opened, Said, Shown, WaitingRoom

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a source is opened again: each time twice as long
FOLDER_PAUSE = 0.5  # seconds between two looks into a folder


def growing_pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield min(pause, LONGEST_PAUSE)
        pause *= 2


class Feed(threading.Thread):
    """Reads the source ``number`` until it ends or ``stop`` is set.

    ``retries``: how often in a row it is opened again without a picture; None: without end. ``is_paced``: whether
    frames are left out if the model is too slow.
    """

    def __init__(
        self,
        number: int,
        address: Address,
        room: WaitingRoom,
        settings: Settings,
        *,
        is_paced: bool,
        retries: int | None = None,
        new_only: bool = False,
    ):
        super().__init__(name=f"evl-source-{number}", daemon=True)
        self.number, self.address, self.room, self.settings = number, address, room, settings
        self.is_paced, self.retries, self.new_only = is_paced, retries, new_only
        self.stop, self.counts = threading.Event(), Counts()
        self._size: tuple[int, int] | None = None  # of the newest frame

    def run(self) -> None:
        try:
            if self.address.kind == "folder":
                self._watch_folder()
            else:
                self._read_again_and_again()
        except Exception as error:  # a thread that dies silently would be waited for without end
            self._put(Closed("failed", f"{type(error).__name__}: {error}", is_last=True))
            raise

    def _put(self, item: Item) -> None:
        self.room.put(self.number, item, self.counts, is_paced=self.is_paced)

    def _read_again_and_again(self) -> None:
        pauses, failures, opened = growing_pauses(), 0, 0
        while not self.stop.is_set():
            before, started = self.counts.frames, time.monotonic()
            state, reason = self._read_once(self.address, resumes=opened > 0)
            if self.stop.is_set():
                break
            if self.counts.frames > before:
                opened, failures = opened + 1, 0
                if time.monotonic() - started > LONGEST_PAUSE:
                    pauses = growing_pauses()
            else:
                failures += 1
            gives_up = state == "lost" and self.retries is not None and failures > self.retries
            if state != "lost" or gives_up:
                self._put(Closed("failed" if gives_up else state, reason, is_last=True))
                return
            pause = next(pauses)
            self.counts.breaks += 1
            self._put(Closed("lost", f"{reason}; it is opened again in {pause:g} s"))
            self.stop.wait(pause)
        self._put(Closed("ended", "stopped", is_last=True))

    def _read_once(self, address: Address, *, resumes: bool = False) -> tuple[str, str]:
        """(lost, ended or failed; the reason)."""
        cpu = time.thread_time()
        is_first, self._size = True, self._size if resumes else None
        try:
            with open_source(address, self.settings, self.stop, lambda text: self._put(Said("silent", text))) as source:
                for one in pictures(source, address.shown, self.settings, self._damaged, self.stop):
                    arrived = time.monotonic()
                    if is_first:
                        self._put(Opened(address.shown, arrived, resumes))
                    if self._size not in (None, one.size):
                        before, after = (f"{width}×{height}" for height, width in (self._size, one.size))
                        self._put(Said("changed", f"the picture changes from {before} to {after}"))
                    is_first, self._size = False, one.size
                    self.counts.frames += 1
                    self._put(Shown(one.time_seconds, one.rgb, arrived, one.left_out))
                if source.was_replaced():
                    return "lost", "the file was replaced"
                if not source.is_finite:
                    return "lost", "the stream ends"
            return ("failed", "has no pictures") if is_first else ("ended", "was read to its end")
        except VideoError as error:
            return "lost" if address.comes_back else "failed", error.reason
        finally:
            self.counts.seconds += time.thread_time() - cpu

    def _damaged(self, count: int) -> None:
        self.counts.damaged += count

    def _watch_folder(self) -> None:
        scan, pauses, failures = FolderScan(self.address.name, rest=REST, new_only=self.new_only), growing_pauses(), 0
        while not self.stop.is_set():
            try:
                paths = scan.ready()
                pauses, failures, pause = growing_pauses(), 0, FOLDER_PAUSE
            except OSError as error:
                failures += 1
                reason = f"cannot be listed ({(error.strerror or str(error)).lower()})"
                if self.retries is not None and failures > self.retries:
                    self._put(Closed("failed", reason, is_last=True))
                    return
                paths, pause = [], next(pauses)
                self.counts.breaks += 1
                self._put(Said("lost", f"{reason}; it is listed again in {pause:g} s", self.address.shown))
            for path in paths:
                self._read_file(path)
            self.stop.wait(pause)
        self._put(Closed("ended", "stopped", is_last=True))

    def _read_file(self, path: str) -> None:
        if self.stop.is_set():
            return
        try:
            is_plain = stat.S_ISREG(os.lstat(path).st_mode)
        except OSError:
            is_plain = False
        if not is_plain:  # it was replaced since the folder was listed
            self._put(Said("failed", "is gone, or no plain file any more", path))
            return
        file = replace(self.address, kind="file", name=path, shown=path)
        before = self.counts.frames
        state, reason = self._read_once(file)
        if self.counts.frames > before:
            self._put(Closed(state, reason))
        else:
            self._put(Said(state, reason, path))
