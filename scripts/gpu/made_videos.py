"""Videos that look like videos: a texture that moves, H.264, 340×256, 10 s. Two classes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
from settings import Settings


def make_videos(settings: Settings) -> Path:
    """A folder with a folder per class in the work folder; made once. Few are encoded, the others are copies."""
    folder = settings.work / "videos"
    done = settings.work / "videos.done"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    different, total = (6, 12) if settings.dry else (2 * cores, 16 * cores)
    size = (24, 64, 96) if settings.dry else (250, 256, 340)
    paths = [folder / f"class {i % 2}" / f"{i:04d}.mp4" for i in range(total)]
    for path in paths[:2]:
        path.parent.mkdir(parents=True)
    tasks = [(str(path), number, *size) for number, path in enumerate(paths[:different])]
    with multiprocessing.get_context("spawn").Pool(min(cores, different)) as pool:
        pool.starmap(make_one, tasks, chunksize=1)
    for number, path in enumerate(paths[different:]):
        # of the same class, since their numbers differ by an even one
        shutil.copyfile(paths[number % different], path)
    done.touch()
    return folder


def make_one(path: str, seed: int, count: int, height: int, width: int) -> None:
    from tests.helpers import write_video

    rng = np.random.default_rng(seed)
    low, high = (40, 140) if seed % 2 else (120, 220)  # classes differ in brightness
    coarse = rng.integers(low, high, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    noise = rng.integers(0, 12, texture.shape, dtype=np.uint8)
    frames = np.stack([np.roll(texture, (i, 2 * i), (0, 1)) + np.roll(noise, 3 * i, 0) for i in range(count)])
    write_video(path, frames, options={"preset": "veryfast", "threads": "1"})
