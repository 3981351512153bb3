"""Backgrounds: gray textures that are made once per split, with new colors for each video."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image

SIDE = 224  # pixels of a texture
NUM_TEXTURES = 24  # per split


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
