"""Freed memory that is kept, for commands that need the same amounts again and again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has glibc keep large blocks that are freed, instead of giving them back; False where there is no glibc.

    A step of training on the CPU frees and wants hundreds of megabytes; given back, they come as new pages that are
    filled with zeros at the first touch: 8 % of a decoder's step and more (docs/performance.md).
    It holds for the whole process, so programs decide, not libraries: ``evl train`` and ``evl sweep`` do.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
