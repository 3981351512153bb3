"""Batches in order, whatever happens to the processes that read them."""

import multiprocessing
import os
import signal
import subprocess

import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from evl.data.loader import CRASHED, _Guarded, read_batches
from evl.errors import ConfigError, RunError
from evl.runtime.parallel import each_in_process
from evl.types import Sample

CPU = torch.device("cpu")


class Numbers(torch.utils.data.Dataset):
    """``dataset[i]`` is i; some samples kill the process that reads them, some only the first time."""

    def __init__(self, count, deadly=(), deadly_once=(), flag=None):
        self.samples = [Sample(f"{i}.mp4") for i in range(count)]
        self.deadly, self.deadly_once, self.flag = deadly, deadly_once, flag

    def __getitem__(self, index):
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        if index in self.deadly_once and not self.flag[index]:
            self.flag[index] = 1
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    def sample_of(self, index):
        return index

    def failed(self, index, reason):
        return f"{index}: {reason}"


def read(dataset, batches, num_workers=2):
    return list(read_batches(dataset, batches, num_workers=num_workers, device=CPU, collate=list))


def test_a_decoder_that_kills_its_process_is_one_damaged_video(monkeypatch):
    # PyTorch looks every 5 seconds whether a worker has died
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    flag = torch.zeros(20, dtype=torch.uint8).share_memory_()
    batches = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(6)] + [[4, 18, 19]]
    before = signal.getsignal(signal.SIGCHLD)
    got = read(Numbers(20, deadly=[4], deadly_once=[11], flag=flag), batches)
    expected = [[f"4: {CRASHED}" if i == 4 else i for i in batch] for batch in batches]
    assert got == expected
    assert flag[11]  # it did die there, and was read the second time
    assert signal.getsignal(signal.SIGCHLD) == before


class Broken(Numbers):
    def __getitem__(self, index):
        raise RuntimeError("a mistake of ours")


def test_the_dead_are_blamed_once():
    guarded = _Guarded(Numbers(5), num_workers=2)
    gone = subprocess.Popen(["true"])
    gone.wait()
    guarded.pids[:], guarded.reading[:] = torch.tensor([gone.pid, os.getpid()]), torch.tensor([3, 4])
    assert guarded.blame_dead_workers() == ["3.mp4"]
    assert guarded.blame_dead_workers() == []
    assert guarded.tries.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_of_the_program_are_not_swallowed(num_workers):
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        read(Broken(3), [[0], [1]], num_workers=num_workers)
    assert not multiprocessing.active_children()  # what waits for garbage collection would wait for 10 seconds there


class Dying(Numbers):
    """Whose processes die at no sample in particular."""

    def __getitem__(self, index):
        return _Deadly()


class _Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_processes_that_die_without_cause_stop_the_run():
    with pytest.raises(RunError, match="die again and again"):
        read(Dying(4), [[0], [1], [2]], num_workers=1)


@pytest.mark.parametrize("count", [-1, 1025, 10**9])
def test_numbers_of_processes_that_no_machine_starts(count):
    for start in (
        lambda: read(Numbers(3), [[0], [1], [2]], num_workers=count),
        lambda: list(each_in_process(len, ["a"], count)),
    ):
        with pytest.raises(ConfigError, match=f"{count} worker processes: expected a number from 0 to 1024"):
            start()
