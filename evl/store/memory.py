"""Large tensors on the CPU. Their memory is used again when no tensor needs it any more.

The system's allocator returns large blocks to the system when they are freed. The system fills the pages of new blocks
with zeros, which takes seven times as long as writing to them (docs/store.md). Each step of a decoder needs the same
sizes, so blocks are kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor, UntypedStorage

LARGE = 16 << 20  # bytes; the allocator itself keeps smaller blocks
_kept: list[UntypedStorage] = []
_lock = threading.Lock()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As ``torch.empty``, on the CPU.

    The memory is in use while the tensor, a view of it, or a tensor that autograd keeps exists. A bare
    ``UntypedStorage`` does not count.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < LARGE or not hasattr(torch._C, "_storage_Use_Count"):
        return torch.empty(shape, dtype=dtype)
    with _lock:
        for storage in _kept:
            if storage.nbytes() == num_bytes and _is_free(storage):
                return torch.empty(0, dtype=dtype).set_(storage, 0, torch.Size(shape))
        _kept[:] = [
            storage for storage in _kept if not _is_free(storage)
        ]  # free ones of other sizes: the batches have changed
        tensor = torch.empty(shape, dtype=dtype)
        _kept.append(tensor.untyped_storage())
        return tensor


def _is_free(storage: UntypedStorage) -> bool:
    return torch._C._storage_Use_Count(storage._cdata) == 1  # only the list refers to it
