"""Large tensors on the CPU, in memory that is used again once nobody holds it.

The system's allocator gives large blocks back when they are freed and maps new ones, whose pages are filled with zeros
when they are first touched: seven times the time of writing to them (docs/store.md). A decoder's step takes the same
sizes every time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor, UntypedStorage

LARGE = 16 << 20  # bytes; what is smaller comes from memory that the allocator has kept
_kept: list[UntypedStorage] = []
_lock = threading.Lock()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As ``torch.empty``, on the CPU. A tensor, a view of it, what autograd keeps of it hold its memory (but not a bare
    ``UntypedStorage``)."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < LARGE or not hasattr(torch._C, "_storage_Use_Count"):
        return torch.empty(shape, dtype=dtype)
    with _lock:
        for storage in _kept:
            if storage.nbytes() == num_bytes and _is_free(storage):
                return torch.empty(0, dtype=dtype).set_(storage, 0, torch.Size(shape))
        _kept[:] = [storage for storage in _kept if not _is_free(storage)]  # of other sizes: batches have changed
        tensor = torch.empty(shape, dtype=dtype)
        _kept.append(tensor.untyped_storage())
        return tensor


def _is_free(storage: UntypedStorage) -> bool:
    return torch._C._storage_Use_Count(storage._cdata) == 1  # held by the list alone
