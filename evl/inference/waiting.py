"""Waiting for files that are still being written: downloads, recordings, copies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable

log = logging.getLogger("evl")
QUIET_SECONDS = 3.0  # for so long a file must not change to be taken as complete
LIMIT_SECONDS = 600.0


def wait_until_complete(
    paths: Iterable[str],
    limit_seconds: float = LIMIT_SECONDS,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Returns when no file has changed for ``quiet_seconds``, or ``limit_seconds`` are over: path → reason for those
    that are not complete by then.

    A file is complete when its size and its time of change have stayed the same for that long and it is not empty; a
    folder of frames when this holds of its number of files and of their sizes. A file that is not there yet is waited
    for as well. All are watched at once, each file once, so complete ones cost ``quiet_seconds`` in all.
    """
    started = clock()
    seen = {path: (_state(path), started) for path in paths}  # what it is like, and since when
    waiting, told = set(seen), False
    while waiting:
        now = clock()
        for path in sorted(waiting):
            state = _state(path)
            before, since = seen[path]
            if state != before:
                seen[path] = state, now
            elif state is not None and state[0] > 0 and now - since >= quiet_seconds:
                waiting.discard(path)
        if not waiting:
            break
        if now - started >= max(limit_seconds, quiet_seconds):
            return {path: _reason(seen[path][0], limit_seconds) for path in seen if path in waiting}
        if not told and now - started > quiet_seconds:
            told = True
            files = "1 file" if len(waiting) == 1 else f"{len(waiting)} files"
            log.info("waiting for %s to be complete, such as %s (Ctrl-C stops)", files, min(waiting))
        sleep(min(0.5, quiet_seconds / 4))
    return {}


def _state(path: str) -> tuple | None:
    """(bytes, time of change or number of files); None if there is nothing."""
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                sizes = [entry.stat().st_size for entry in entries if entry.is_file()]
            return sum(sizes), len(sizes)
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _reason(state: tuple | None, limit_seconds: float) -> str:
    if state is None:
        return f"no such file, also after {limit_seconds:g} s of waiting"
    if state[0] == 0:
        return f"still empty after {limit_seconds:g} s of waiting"
    return f"still growing after {limit_seconds:g} s of waiting; wait longer, or predict it once it is complete"
