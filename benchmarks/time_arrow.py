"""Makes a set of videos that differ in the direction of time alone: python benchmarks/time_arrow.py FOLDER

Green dots that grow before a changing background, forwards and backwards: two classes, 60 videos each to train and 24
to judge, and a config for 'evl train --config FOLDER/config.yaml'. docs/probes.md says what decoders make of it.
"""

import colorsys
import sys
from pathlib import Path

import av
import numpy as np

from evl.config import RunConfig, replace

PER_CLASS = {"train": 60, "val": 24}
NUM_FRAMES, SIZE, RATE = 32, 96, 16


def main(folder: Path) -> None:
    for number, (split, count) in enumerate(PER_CLASS.items()):
        for step, name in ((1, "growing"), (-1, "shrinking")):
            (folder / "videos" / split / name).mkdir(parents=True)
            for i in range(count):
                frames = draw_growing_dots(np.random.default_rng([1, number, step > 0, i]))
                write_h264(folder / "videos" / split / name / f"{i:03d}.mp4", frames[::step])
    config = replace(
        RunConfig(),
        backbone={"name": "evl_clip_tiny", "pretrained": False},
        data={"path": str(folder / "videos")},
        model={"taps": "last 3"},
        clip={"num_frames": 8, "stride": 4},
        augment={"rand_augment": None, "crop_area": (0.4, 1.0), "flip": 0.5},
        training={"steps": 160, "batch_size": 16, "lr": 1e-3, "warmup_steps": 10, "eval_every": 0, "save_every": 60},
        evaluation={"num_clips": 3, "num_crops": 1},
    )
    (folder / "config.yaml").write_text(config.to_yaml())


def draw_growing_dots(generator: np.random.Generator) -> np.ndarray:
    """(F,H,W,3) uint8: a disc or square of dots; shade, size, place, speed, background and noise are random."""
    dark, light = _two_shades(2 / 6 + generator.uniform(-0.06, 0.06), generator)
    ground, other = _two_greys(generator)
    radius, speed = generator.uniform(18, 28), generator.uniform(0.7, 1.2) * generator.choice([-1, 1])
    centre = SIZE / 2 + generator.uniform(-12, 12, 2)
    wave, drift = generator.uniform(-0.12, 0.12, 2), generator.uniform(-3, 3)
    is_disc = generator.random() < 0.5
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
    for i, t in enumerate(np.linspace(-1, 1, NUM_FRAMES)):
        scale = np.exp(0.6 * abs(speed) * t)
        u, v = (x - centre[0]) / scale, (y - centre[1]) / scale
        inside = np.hypot(u, v) < radius if is_disc else np.maximum(abs(u), abs(v)) < radius * 0.85
        mix = 0.5 + 0.5 * np.sin(wave[0] * x + wave[1] * y + drift * t)
        picture = ground * mix[..., None] + other * (1 - mix[..., None])
        dots = np.cos(u * 0.9) + np.cos(v * 0.9) > 0.7
        picture[inside] = np.where(dots[..., None], light, dark)[inside]
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
