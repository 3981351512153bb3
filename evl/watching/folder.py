"""A folder into which videos are put: each file once, as soon as it is complete."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from evl.data.manifests.listing import is_video_name

REST = 2.0  # seconds


class _Sign(NamedTuple):
    """What changes while a file is written. A file that is moved keeps it."""

    device: int
    inode: int
    size: int
    changed: int


@dataclass
class _Seen:
    """``read_as``: the name under which it was read."""

    sign: _Sign
    since: float
    read_as: str | None = None


class FolderScan:
    """``ready()``: the paths of files that have come since the last call and are complete, oldest first.

    A file is complete when its size and time have not changed for ``rest`` seconds, under whatever name. So a file that
    was written under a hidden name, and renamed at its end, is complete at once. Only plain files with the ending of a
    video count: no links, no hidden names, nothing in folders below. A file that changes after it was read is not read
    again, but another file under its name is.

    ``new_only``: files that are there at the first call are left out. It keeps a few numbers for each file there.
    """

    def __init__(
        self, path: str, *, rest: float = REST, new_only: bool = False, clock: Callable[[], float] = time.monotonic
    ):
        self.path, self.rest, self.clock = path, rest, clock
        self._seen: dict[tuple[int, int], _Seen] = {}  # by device and inode
        self._skips = new_only

    def ready(self) -> list[str]:
        """Raises OSError if the folder cannot be listed."""
        now, there, complete = self.clock(), {}, []
        for name, sign in self._files():
            seen = self._seen.get(sign[:2])
            if seen is None or (seen.sign != sign and seen.read_as != name):  # inodes are used again
                seen = _Seen(sign, now)
            elif seen.sign != sign:
                seen = _Seen(sign, now, seen.read_as)
            there[sign[:2]] = seen
            if self._skips and _is_shown(name):
                seen.read_as = name
            is_complete = now - seen.since >= self.rest and sign.size > 0
            if is_complete and _is_shown(name) and seen.read_as is None:
                seen.read_as = name
                complete.append((sign.changed, os.path.join(self.path, name)))
        self._seen, self._skips = there, False
        return [path for _, path in sorted(complete)]

    def _files(self) -> list[tuple[str, _Sign]]:
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it is gone again
                if stat.S_ISREG(info.st_mode):
                    found.append((entry.name, _Sign(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)))
        return found


def _is_shown(name: str) -> bool:
    return is_video_name(name) and not name.startswith(".")
