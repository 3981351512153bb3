"""The pictures of the data set `motions`: drawings by several artists, cut from one atlas picture in the package.

Each split has its own objects and artists, so a model is always judged on drawings that it never saw in training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from evl.errors import ConfigError

ATLAS = Path(__file__).parents[2] / "assets" / "objects.png"
SPLITS = ("train", "val", "test")
NUM_DIRECTIONS = 16  # directions in which a picture's reach is measured
MIN_CHANGE = 0.2  # the smallest change of a turned picture, as a share of its own ink, that counts as visible


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
