"""How fast training clips are read from sources and from their copies, by the loader's own functions."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from evl.errors import VideoError
from evl.video.decode.reader import read_frames
from evl.video.sampling import random_clip_indices
from evl.video.views import frame_range

NUM_FRAMES, STRIDE = 8, 16  # the clips of most recipes
CLIPS_A_FILE = 2


@dataclass(frozen=True)
class LoadingSpeed:
    """8x16 clips a second in one worker with one thread, from files that lie in memory. The first clip of a file
    includes the first look at it, as in training."""

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
    """Reads the same random clips from source and copy of up to ``max_files`` (source, copy) spread over the
    collection, for about ``max_seconds``; None where nothing can be read. ``every``: frames of a source to one of its
    copy."""
    places = sorted({i * len(pairs) // max_files for i in range(max_files)}) if len(pairs) > max_files else None
    chosen = list(pairs) if places is None else [pairs[place] for place in places]
    if not chosen:
        return None
    # a real loader's worker, because readers take one thread there and more elsewhere; its first file warms it up
    clips = _Clips([chosen[0], *chosen], every)
    loader = DataLoader(
        clips, batch_size=None, num_workers=1, multiprocessing_context="forkserver", worker_init_fn=_start_worker
    )
    spent = np.zeros(2)
    num_files, started = 0, time.monotonic()
    for place, seconds in enumerate(loader):
        if place and seconds is not None:
            spent += seconds
            num_files += 1
        if num_files and time.monotonic() - started > max_seconds:
            break
    if not num_files:
        return None
    num_clips = num_files * CLIPS_A_FILE
    return LoadingSpeed(num_files, num_clips, *(float(num_clips / seconds) for seconds in spent))


class _Clips(Dataset):
    """One item a file: seconds that its clips took from source and from copy; None if one cannot be read."""

    def __init__(self, pairs: Sequence[tuple[str, str]], every: int):
        self.pairs, self.every = pairs, every

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> tuple[float, float] | None:
        spent = [0.0, 0.0]
        try:
            for clip in range(CLIPS_A_FILE):
                generator = np.random.default_rng([place, clip])
                indices: list[int] = []
                for side, path in enumerate(self.pairs[place]):
                    started = time.perf_counter()
                    first, count = frame_range(path, None, None)
                    if side == 0:
                        indices = random_clip_indices(
                            count,
                            num_frames=NUM_FRAMES,
                            stride=STRIDE,
                            past_end="last_video_frame",
                            generator=generator,
                        )
                    read_frames(path, [first + index // (self.every if side else 1) for index in indices])
                    spent[side] += time.perf_counter() - started
        except VideoError:
            return None
        return spent[0], spent[1]


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    torch.set_num_threads(1)
