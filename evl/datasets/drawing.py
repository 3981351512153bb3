"""The objects of the data set `motions`, and a scene with them → the frames of a video.

Objects are drawings by several artists, cut from one atlas picture in the package. Each split has its own objects and
artists, so a model is always judged on drawings that it never saw in training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from evl.datasets.templates import SIZE, Scene, Track
from evl.errors import ConfigError

ATLAS = Path(__file__).parents[1] / "assets" / "objects.png"
SPLITS = ("train", "val", "test")
NUM_DIRECTIONS = 16  # directions in which a picture's reach is measured
MIN_CHANGE = 0.2  # the smallest change of a turned picture, as a share of its own ink, that counts as visible
MAX_NOISE = 3  # the largest standard deviation of noise, in units of NOISE_STEP
NOISE_STEP = 2.0  # gray levels
SIDE = 224  # pixels of a texture
NUM_TEXTURES = 24  # per split


@dataclass(frozen=True, eq=False)
class Object:
    """One drawing.

    ``picture``: (48,48,4) uint8, RGBA, read-only. ``reach`` (16,): the distance from the cell's center to the end of
    the outline in directions 0, 22.5, … degrees (x to the right, y down), in sides of the cell. ``shows_turning``:
    whether the drawing looks different when it is turned; a plate, for example, does not.
    """

    name: str
    category: str
    artist: str
    picture: np.ndarray
    reach: np.ndarray
    shows_turning: bool


def load_objects(split: str) -> list[Object]:
    """All objects of ``train``, ``val`` or ``test``, in the atlas's order."""
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    return list(_load()[split])


def category_names() -> tuple[str, ...]:
    """The categories of all splits, sorted."""
    return tuple(sorted({thing.category for things in _load().values() for thing in things}))


@cache
def _load() -> dict[str, tuple[Object, ...]]:
    document = json.loads(ATLAS.with_suffix(".json").read_text(encoding="utf-8"))
    with Image.open(ATLAS) as atlas:
        pixels = np.asarray(atlas.convert("RGBA"))
    pixels.flags.writeable = False
    cell, columns = document["cell"], document["columns"]
    found: dict[str, list[Object]] = {split: [] for split in SPLITS}
    for place, entry in enumerate(document["pictures"]):
        top, left = place // columns * cell, place % columns * cell
        picture = pixels[top : top + cell, left : left + cell]
        names = {key: entry[key] for key in ("name", "category", "artist")}
        thing = Object(**names, picture=picture, reach=_reach(picture), shows_turning=_shows_turning(picture))
        found[entry["split"]].append(thing)
    return {split: tuple(things) for split, things in found.items()}


def _reach(picture: np.ndarray) -> np.ndarray:
    """(16,): the distance of the farthest opaque pixel in each direction, in sides of the picture."""
    side = len(picture)
    rows, columns = np.nonzero(picture[..., 3] > 127)
    places = np.stack([columns, rows], 1) / side - (side - 1) / (2 * side)
    angles = np.arange(NUM_DIRECTIONS) * 2 * np.pi / NUM_DIRECTIONS
    return (places @ np.stack([np.cos(angles), np.sin(angles)])).max(0)


def _shows_turning(picture: np.ndarray, angles: Sequence[float] = (30, 60, 90)) -> bool:
    """Whether turning the picture by each of the angles changes enough of its ink."""
    small = Image.fromarray(picture).reduce(2)
    ground = Image.new("RGB", small.size, (128, 128, 128))

    def ink(turned: Image.Image) -> np.ndarray:
        on_ground = ground.copy()
        on_ground.paste(turned, (0, 0), turned)
        return np.asarray(on_ground, np.float32) - 128

    still = ink(small)
    least = min(np.abs(ink(small.rotate(angle, Image.Resampling.BILINEAR)) - still).sum() for angle in angles)
    return bool(least > MIN_CHANGE * 2 * np.abs(still).sum())


def draw_frames(
    scene: Scene, pictures: Sequence[np.ndarray], rng: Generator, *, seed: int = 0, split: int = 0
) -> list[np.ndarray]:
    """Draws the F frames (SIZE,SIZE,3) uint8 of a scene.

    ``pictures`` (48,48,4) uint8 are those of the objects, one per track. ``seed`` and ``split`` select the backgrounds.
    """
    count, shake = scene.num_frames, scene.shake
    background = draw_background(seed, split, rng)
    corners = _pan(count, rng) + shake
    sprites = [_Sprite(Image.fromarray(picture)) for picture in pictures]
    light = 1 + rng.uniform(0, 0.05) * rng.normal(0, 1, count)
    noise = _noise()[int(rng.integers(MAX_NOISE + 1))]
    offsets = rng.integers(0, noise.shape[0] - SIZE + 1, (count, 2))
    frames = []
    for i in range(count):
        left, top = (round(v) for v in corners[i])
        frame = background.crop((left, top, left + SIZE, top + SIZE))
        for place in scene.order:
            sprites[place].paste(frame, scene.tracks[place], i, shake[i])
        y, x = offsets[i]
        pixels = np.asarray(frame) * np.float32(light[i])
        pixels += noise[y : y + SIZE, x : x + SIZE]
        frames.append(pixels.clip(0, 255).astype(np.uint8))
    return frames


class _Sprite:
    """Turns, scales and places a picture. Keeps the last result, because most objects do not change in each frame."""

    def __init__(self, picture: Image.Image):
        self.whole, self.half = picture, picture.reduce(2)
        self.last_look, self.last_result = None, None

    def paste(self, frame: Image.Image, track: Track, i: int, shake: np.ndarray) -> None:
        opacity = round(255 * track.opacity[i])
        if opacity == 0:
            return
        # rounded to a quarter of a pixel, so that slow motions look smooth
        x4, y4 = (round(4 * (SIZE / 2 + v)) for v in (track.x[i] + shake[0], track.y[i] + shake[1]))
        left, top, size, angle = x4 // 4, y4 // 4, track.size[i], track.angle[i]
        look = (x4 % 4, y4 % 4, size, angle, opacity)
        if look != self.last_look:
            self.last_look, self.last_result = look, self._transform(x4 % 4 / 4, y4 % 4 / 4, size, angle, opacity)
        picture, mask, half = self.last_result
        frame.paste(picture, (left - half, top - half), mask)

    def _transform(self, right: float, down: float, size: float, angle: float, opacity: int):
        """(RGB, mask, half a side): the picture, moved by a fraction of a pixel to the right and down."""
        source = self.whole if size > 0.6 * self.whole.width else self.half
        scale = source.width / size
        turn = np.radians(angle)
        half = int(np.ceil(size / 2 * (abs(np.cos(turn)) + abs(np.sin(turn))))) + 1
        c, s = np.cos(turn) * scale, np.sin(turn) * scale
        middle = source.width / 2
        # maps pixels of the result to the source: turned back by the angle, y down
        matrix = (c, s, middle - c * (half + right) - s * (half + down),
                  -s, c, middle + s * (half + right) - c * (half + down))  # fmt: skip
        picture = source.transform((2 * half, 2 * half), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        mask = picture.getchannel("A")
        if opacity < 255:
            mask = mask.point([v * opacity // 255 for v in range(256)])
        return picture.convert("RGB"), mask, half


def _pan(count: int, rng: Generator) -> np.ndarray:
    """(F,2): the frame's corner in the background, in pixels; the background moves whatever the objects do."""
    fastest = min(2.0, (SIDE - SIZE - 24) / max(1, count - 1))  # so that a long video stays on the background
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, fastest)
    way = np.linspace(-0.5, 0.5, count)[:, None] * (count - 1) * speed * np.array([np.cos(angle), np.sin(angle)])
    edge = 12 + (count - 1) * speed / 2
    return way + rng.uniform(edge, SIDE - SIZE - edge, 2)


@cache
def _noise() -> tuple[np.ndarray, ...]:
    """Noise (side,side,3) float32 of each strength; it is larger than a frame, so that frames can use other parts."""
    tile = np.random.default_rng(0).normal(0, 1, (SIZE + 48, SIZE + 48, 3)).astype(np.float32)
    return tuple(tile * NOISE_STEP * step for step in range(MAX_NOISE + 1))


@cache
def textures(seed: int, split: int) -> tuple[Image.Image, ...]:
    """Gray pictures (mode L, SIDE × SIDE) with values from 0 to 255; each seed and split has its own."""
    pictures = []
    for number in range(NUM_TEXTURES):
        rng = np.random.default_rng([seed, split, number, 2])  # 2: another seed than those of videos and the plan
        values = KINDS[number % len(KINDS)](rng)
        low, high = values.min(), values.max()
        pictures.append(Image.fromarray(((values - low) / (high - low) * 255).astype(np.uint8)))
    return tuple(pictures)


def draw_background(seed: int, split: int, rng: Generator) -> Image.Image:
    """An RGB picture, SIDE × SIDE: a blend of two textures, in a gradient of three colors."""
    pool = textures(seed, split)
    first, second = (pool[rng.integers(NUM_TEXTURES)].transpose(Image.Transpose(rng.integers(7))) for _ in range(2))
    gray = Image.blend(first, second, rng.uniform(0, 0.5))
    brightness, contrast = rng.uniform(70, 190), rng.uniform(15, 60)
    stops = brightness + rng.uniform(-contrast, contrast, 3)[:, None] + rng.uniform(-35, 35, (3, 3))
    tables = [np.interp(np.arange(256), [0, 127, 255], stop).clip(0, 255).astype(np.uint8) for stop in stops.T]
    return Image.merge("RGB", [gray.point(table.tolist()) for table in tables])


def _clouds(rng: Generator) -> np.ndarray:
    total = np.zeros((SIDE, SIDE), np.float32)
    for cells in (4, 8, 16, 32, 64):
        grid = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) * cells ** -rng.uniform(0.5, 1.2)
    return total


def _stripes(rng: Generator) -> np.ndarray:
    angle, width = rng.uniform(0, np.pi), rng.uniform(5, 20)
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.pi / width + _clouds(rng))
    return np.tanh(wave * rng.uniform(0.5, 4)) + 0.1 * _clouds(rng)


def _tiles(rng: Generator) -> np.ndarray:
    width, height = rng.integers(8, 30, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    row = y // height
    column = (x + row % 2 * width // 2) // width
    shades = rng.uniform(0, 1, (SIDE // 8 + 2, SIDE // 8 + 2))[row, column]
    joint = (y % height < 2) | ((x + row % 2 * width // 2) % width < 2)
    return np.where(joint, rng.choice([-0.3, 1.3]), shades) + 0.05 * _clouds(rng)


def _cells(rng: Generator) -> np.ndarray:
    """Pebbles: the distance of each pixel from the nearest of many points."""
    points = rng.uniform(0, SIDE, (int(rng.integers(30, 90)), 2))
    y, x = np.mgrid[:SIDE:2, :SIDE:2]
    nearest = np.sqrt(((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2).min(-1))
    small = Image.fromarray(np.minimum(nearest, 16).astype(np.float32))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


KINDS = (_clouds, _stripes, _tiles, _cells)
