"""Work in one process, or in several that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from evl.errors import ConfigError, EVLError
from evl.runtime.parallel import end_if_only_starting

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run. ``rank`` is the number of this one among ``size``, and ``device`` is its own."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value) -> list:
        """The values of all processes, ordered by rank; every process gets the same list."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def from_each(self, action: Callable[[], T]) -> list[T]:
        """What ``action`` returns in each process, ordered by rank; all get it. An EVLError in any is raised on all."""
        result, problem = None, None
        try:
            result = action()
        except EVLError as error:
            problem = error
        found = self.gather((result, problem))
        for problem in (problem for _, problem in found if problem is not None):
            raise problem
        return [result for result, _ in found]

    def from_main(self, action: Callable[[], T]) -> T:
        """Runs ``action`` on the first process; all get its result. An EVLError there is raised on all."""
        return self.from_each(action if self.is_main else lambda: None)[0]

    def only_main(self, action: Callable[[], object]) -> None:
        """Runs ``action`` on the first process. An EVLError there is raised on all, so that no process waits for it."""

        def act() -> None:
            action()

        self.from_main(act)


def pick_device(name: str | None = None) -> torch.device:
    """The device with this name; without a name, CUDA if there is one, else the CPU.

    ``cuda`` without a number is the GPU of this process's local rank. Raises ConfigError if there is no such device.
    """
    has_cuda = torch.cuda.is_available()
    try:
        device = torch.device(name if name is not None else "cuda" if has_cuda else "cpu")
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"no device named {name!r}; expected cpu, cuda, cuda:1 …")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        if not has_cuda or index >= count:
            raise ConfigError(
                f"device cuda:{index} is needed, but this machine has {count if has_cuda else 'no'} CUDA devices"
            )
        return torch.device("cuda", index)
    return device


@contextmanager
def join_world(device: str | None = None) -> Iterator[World]:
    """The processes that torchrun started, joined by NCCL on CUDA and gloo on CPU; without torchrun, only this one."""
    end_if_only_starting()
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # pinned memory and collectives use the current device
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or dist.is_initialized():
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        yield World(rank, size, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, chosen)
    finally:
        dist.destroy_process_group()
