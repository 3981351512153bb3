"""Freed memory that is kept: seen by the pages that are new."""

import multiprocessing
import resource

import torch

from evl.runtime.cpu import keep_freed_memory


def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000)  # 40 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def measure(pipe):
    torch.set_num_threads(1)
    given_back = new_pages()
    pipe.send((given_back, keep_freed_memory(), new_pages()))


def test_freed_memory_is_used_again():
    """In another process: in this one, another test may have called it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    here, there = context.Pipe()
    process = context.Process(target=measure, args=(there,))
    process.start()
    there.close()
    given_back, is_kept, kept = here.recv()
    process.join()
    assert is_kept
    # glibc does not find every aligned block again at once: it takes some before it does
    assert kept < given_back / 2
