"""Freed memory that is kept: seen by the pages that are new."""

import subprocess
import sys

PROGRAM = """
import resource
import torch
from evl.runtime.cpu import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000)  # 40 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = new_pages()
assert keep_freed_memory()
print(given_back, new_pages())
"""


def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    # glibc does not find every aligned block again at once: it takes some before it does
    assert kept < given_back / 2
