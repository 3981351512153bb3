"""Freed memory that is kept: seen by the pages that are new."""

import subprocess
import sys

PROGRAM = """
import resource, sys
import torch
from evl.runtime.cpu import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(20_000_000)  # 80 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(new_pages())
"""


def new_pages(how):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again():
    # glibc does not find every aligned block again at once: it takes some before it does
    assert new_pages("kept") < new_pages("given back") / 2
