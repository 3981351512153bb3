"""A scene → the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image

from evl.datasets.motions.templates import SIZE, Scene, Track

MAX_NOISE = 3  # the largest standard deviation of noise, in units of NOISE_STEP
NOISE_STEP = 2.0  # gray levels
SIDE = 224  # pixels of a texture
NUM_TEXTURES = 24  # per split


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
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2.0)
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
