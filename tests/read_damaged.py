"""Reads the files given by name on standard input, within limits, and says on standard output how it went: one line of
JSON before each file and one after it. A process of its own, as a file may kill it or hang: ``python -m``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import av
import torch  # noqa: F401  first of all: what it takes of the address space is not counted

from evl.errors import VideoError
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from tests.mutations import forget_peak, memory

ADDRESS_SPACE = 4 << 30  # above what the libraries take
SECONDS = 30  # a file that takes longer hangs
MOST_FRAMES = 200  # no sound file has more


def attempt(path: Path) -> str:
    """What probing, then reading every frame comes to: the reason of refusal, or the fault of the reader."""
    try:
        count = probe(path).num_frames
        read_frames(path, range(min(count, MOST_FRAMES)))
    except VideoError as error:
        if "\n" in str(error) or len(error.reason) < 8 or str(path) not in str(error):
            return f"fault: no clear reason: {error!s}"
        return f"refused: {error.reason}"
    except BaseException as error:
        return f"fault: {type(error).__name__}: {error}"
    return f"read: {count} frames"


def is_broken(path: Path) -> bool:
    """Whether plain decoding of what is left meets an error."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # with more, an error in the last frames gets lost
            for count, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    return True
                if count == MOST_FRAMES:
                    return False
            return "count" not in locals()  # not one frame
    except (OSError, IndexError, ValueError, MemoryError):  # av's errors are OSErrors and ValueErrors
        return True


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # FFmpeg takes more memory with more threads
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESS_SPACE,) * 2)
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        print(json.dumps({"reading": path.name}), flush=True)
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + 2 * SECONDS, resource.RLIM_INFINITY))
        signal.alarm(SECONDS)  # its default action: the end of the process
        forget_peak()
        before, start = memory("VmRSS"), time.perf_counter()
        outcome = attempt(path)
        report = {"name": path.name, "outcome": outcome, "more_megabytes": memory("VmHWM") - before}
        report["seconds"] = round(time.perf_counter() - start, 2)
        if outcome.startswith("read") and path.parent.name == "perhaps":
            report["broken"] = is_broken(path)
        signal.alarm(0)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
