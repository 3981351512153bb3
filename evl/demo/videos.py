"""Small labelled H.264 files, made on the spot: patterned shapes that move before a changing background.

Each class has a pattern and a motion of its own; colours, sizes, places, speeds, backgrounds and noise are drawn at
random, so that no single colour or place gives a class away. An untrained backbone cannot tell pure motions apart
(tried: chance), hence the patterns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

NUM_FRAMES, SIZE, RATE = 32, 96, 16


def _stripes(u, v):
    return np.sin(u * 1.1) > 0


def _checkers(u, v):
    return (np.sin(u * 0.8) > 0) ^ (np.sin(v * 0.8) > 0)


def _dots(u, v):
    return np.cos(u * 0.9) + np.cos(v * 0.9) > 0.7


def _rings(u, v):
    return np.sin(np.hypot(u, v) * 0.9) > 0


def _plain(u, v):
    return np.ones_like(u, bool)


def _cross(u, v):
    return (np.abs(u) < 4) | (np.abs(v) < 4)


# motions: time t in −1…1 and a speed -> (right, down, turn, log scale), distances in pixels
CLASSES: dict[str, tuple[Callable, Callable]] = {
    "striped, moving across": (_stripes, lambda t, s: (26 * s * t, 0, 0, 0)),
    "checkered, falling": (_checkers, lambda t, s: (0, 26 * s * t, 0, 0)),
    "dotted, growing": (_dots, lambda t, s: (0, 0, 0, 0.6 * s * t)),
    "ringed, shrinking": (_rings, lambda t, s: (0, 0, 0, -0.6 * s * t)),
    "plain, swinging": (_plain, lambda t, s: (22 * np.sin(4 * s * t), 0, 0, 0)),
    "crossed, turning": (_cross, lambda t, s: (0, 0, 2.5 * s * t, 0)),
}


def make_videos(folder: str | Path, *, per_class: dict[str, int], seed: int = 0, progress=lambda: None) -> None:
    """``folder/split/class/000.mp4`` for each split and class; ``per_class``: videos a class by split."""
    for number, (split, count) in enumerate(sorted(per_class.items())):
        for place, name in enumerate(CLASSES):
            directory = Path(folder) / split / name
            directory.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                generator = np.random.default_rng([seed, number, place, i])
                write_h264(directory / f"{i:03d}.mp4", draw_video(name, generator))
                progress()


def draw_video(name: str, generator: np.random.Generator) -> np.ndarray:
    """(F,H,W,3) uint8 of one class."""
    pattern, motion = CLASSES[name]
    dark, light = _two_colours(generator)
    ground, other = _two_colours(generator)
    radius, speed = generator.uniform(18, 28), generator.uniform(0.7, 1.2) * generator.choice([-1, 1])
    if name.endswith(("falling", "growing", "shrinking")):
        speed = abs(speed)
    centre = SIZE / 2 + generator.uniform(-12, 12, 2)
    wave, drift = generator.uniform(-0.12, 0.12, 2), generator.uniform(-3, 3)
    is_disc = generator.random() < 0.5
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
    for i, t in enumerate(np.linspace(-1, 1, NUM_FRAMES)):
        right, down, turn, scale = motion(t, speed)
        u, v = (x - centre[0] - right) / np.exp(scale), (y - centre[1] - down) / np.exp(scale)
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        inside = np.hypot(u, v) < radius if is_disc else np.maximum(abs(u), abs(v)) < radius * 0.85
        mix = 0.5 + 0.5 * np.sin(wave[0] * x + wave[1] * y + drift * t)
        picture = ground * mix[..., None] + other * (1 - mix[..., None])
        picture[inside] = np.where(pattern(u, v)[..., None], light, dark)[inside]
        frames[i] = (picture + generator.normal(0, 6, picture.shape)).clip(0, 255)
    return frames


def _two_colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours that can be told apart by their brightness."""
    base = generator.uniform(20, 235, 3)
    step = generator.uniform(60, 120) * (1 if base.mean() < 127 else -1)
    return base, (base + step + generator.uniform(-30, 30, 3)).clip(0, 255)


def write_h264(path: Path, frames: np.ndarray) -> None:
    """Frames (F,H,W,3) uint8 as an ordinary H.264 file, B-frames and all."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
