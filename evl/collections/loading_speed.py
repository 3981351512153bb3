"""Measures how fast training clips are read from sources and from their copies."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from evl.errors import VideoError
from evl.video.decode.reader import read_clip
from evl.video.plans import Numbered, RandomClip, Spacing

SPACING = Spacing(num_frames=8, stride=16, past_end="last_video_frame")  # the clips of most recipes
CLIPS_PER_FILE = 2


@dataclass(frozen=True)
class LoadingSpeed:
    """8x16 clips per second in one worker with one thread, from files in the system's cache. The first clip of a file
    includes the search for its frames, as in training."""

    num_files: int
    num_clips: int
    source_clips_per_second: float
    copy_clips_per_second: float

    @property
    def ratio(self) -> float:
        return self.copy_clips_per_second / self.source_clips_per_second


def measure_loading(
    pairs: Sequence[tuple[str, str]], every: int = 1, *, max_files: int = 16, max_seconds: float = 60
) -> LoadingSpeed | None:
    """Reads the same random clips from sources and copies, and returns the speeds; None if no file can be read.

    Args:
        pairs: (source, copy) of each video; up to ``max_files`` of them are read, spread over the collection.
        every: The copy has every n-th frame of its source.
        max_seconds: The measurement stops after about this time.
    """
    if not pairs:
        return None
    num_files = min(len(pairs), max_files)
    chosen = [pairs[i * len(pairs) // num_files] for i in range(num_files)]
    # decoders take one thread in a loader's worker and more elsewhere, so this needs a worker; one file warms it up
    clips = _Clips([chosen[0], *chosen], every)
    loader = DataLoader(
        clips, batch_size=None, num_workers=1, multiprocessing_context="forkserver", worker_init_fn=_start_worker
    )
    spent = np.zeros(2)
    num_read, started = 0, time.monotonic()
    for place, seconds in enumerate(loader):
        if place and seconds is not None:
            spent += seconds
            num_read += 1
        if num_read and time.monotonic() - started > max_seconds:
            break
    if not num_read:
        return None
    num_clips = num_read * CLIPS_PER_FILE
    return LoadingSpeed(num_read, num_clips, *(float(num_clips / seconds) for seconds in spent))


class _Clips(Dataset):
    """One item per file: the seconds to read its clips from source and from copy; None if either cannot be read."""

    def __init__(self, pairs: Sequence[tuple[str, str]], every: int):
        self.pairs, self.every = pairs, every

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> tuple[float, float] | None:
        source, copy = self.pairs[place]
        source_seconds = copy_seconds = 0.0
        try:
            for number in range(CLIPS_PER_FILE):
                plan = RandomClip(SPACING, (place, number))
                started = time.perf_counter()
                clip = read_clip(source, plan)
                between = time.perf_counter()
                read_clip(copy, Numbered(copy, tuple(index // self.every for index in plan.indices(clip.known))))
                source_seconds += between - started
                copy_seconds += time.perf_counter() - between
        except VideoError:
            return None
        return source_seconds, copy_seconds


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    torch.set_num_threads(1)
