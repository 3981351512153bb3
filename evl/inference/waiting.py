"""Waiting for files that are still being written: downloads, recordings, copies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable

log = logging.getLogger("evl")
QUIET_SECONDS = 3.0  # a file that does not change for so long is complete
LIMIT_SECONDS = 600.0


def wait_until_complete(
    paths: Iterable[str],
    limit_seconds: float = LIMIT_SECONDS,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Waits until all files are complete, at most ``limit_seconds``; returns path → reason for those that are not.

    A file is complete when it is not empty, and its size and time of change were the same for ``quiet_seconds``. A
    folder of frames is complete when this holds for its number of files and their total size. Files that do not exist
    yet are waited for, too. All are watched at the same time, so complete files cost ``quiet_seconds`` in total.
    """
    started = clock()
    seen = {path: (_state(path), started) for path in paths}  # each file's state, and the time since which it has it
    waiting, is_logged = set(seen), False
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
        if not is_logged and now - started > quiet_seconds:
            is_logged = True
            files = "1 file" if len(waiting) == 1 else f"{len(waiting)} files"
            log.info("waiting for %s to be complete, such as %s (Ctrl-C stops)", files, min(waiting))
        sleep(min(0.5, quiet_seconds / 4))
    return {}


def _state(path: str) -> tuple | None:
    """(bytes, time of change or number of files); None if the path does not exist."""
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                sizes = [entry.stat().st_size for entry in entries if entry.is_file()]
            return sum(sizes), len(sizes)
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_size, info.st_mtime_ns


def _reason(state: tuple | None, limit_seconds: float) -> str:
    if state is None:
        return f"no such file, even after {limit_seconds:g} s of waiting"
    if state[0] == 0:
        return f"still empty after {limit_seconds:g} s of waiting"
    return f"still growing after {limit_seconds:g} s of waiting; wait longer, or predict it once it is complete"
