"""Keeping freed memory, for commands that need the same amounts again and again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep large freed blocks instead of returning them to the system; False if there is no glibc.

    A training step on the CPU frees and needs hundreds of megabytes. If they were returned, they would come back as new
    pages that the system fills with zeros: 8 % of a decoder's step and more (docs/performance.md).
    The setting holds for the whole process, so only the commands ``evl train`` and ``evl sweep`` call this.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
