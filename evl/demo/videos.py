"""Small labelled H.264 files, made on the spot: patterned shapes that move before a changing background.

Each class has a pattern, a range of colours and a motion of its own; shades, sizes, places, speeds, backgrounds and
noise are drawn at random. An untrained backbone cannot tell pure motions apart (tried: chance), nor patterns in random
colours (tried: 36 % of six classes), hence the colours.
"""

from __future__ import annotations

import colorsys
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


# hue in 0…1, pattern, and motion: time t in −1…1 and a speed -> (right, down, turn, log scale), in pixels and radians
CLASSES: dict[str, tuple[float, Callable, Callable]] = {
    "red stripes moving across": (0.0, _stripes, lambda t, s: (26 * s * t, 0, 0, 0)),
    "yellow checkers falling": (1 / 6, _checkers, lambda t, s: (0, 26 * abs(s) * t, 0, 0)),
    "green dots growing": (2 / 6, _dots, lambda t, s: (0, 0, 0, 0.6 * abs(s) * t)),
    "cyan rings shrinking": (3 / 6, _rings, lambda t, s: (0, 0, 0, -0.6 * abs(s) * t)),
    "blue plain swinging": (4 / 6, _plain, lambda t, s: (22 * np.sin(4 * s * t), 0, 0, 0)),
    "purple cross turning": (5 / 6, _cross, lambda t, s: (0, 0, 2.5 * s * t, 0)),
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
    hue, pattern, motion = CLASSES[name]
    dark, light = _two_shades(hue + generator.uniform(-0.06, 0.06), generator)
    ground, other = _two_greys(generator)
    radius, speed = generator.uniform(18, 28), generator.uniform(0.7, 1.2) * generator.choice([-1, 1])
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


def _two_shades(hue: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a light shade of a hue, 0–255."""
    saturation = generator.uniform(0.6, 1)
    return tuple(
        255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
        for value in (generator.uniform(0.25, 0.5), generator.uniform(0.75, 1))
    )


def _two_greys(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two greys with a tinge of any colour."""
    return tuple((generator.uniform(30, 225) + generator.uniform(-25, 25, 3)).clip(0, 255) for _ in range(2))


def write_h264(path: Path, frames: np.ndarray) -> None:
    """Frames (F,H,W,3) uint8 as an ordinary H.264 file, B-frames and all."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
