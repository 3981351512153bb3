"""Clips as pictures that move, plain and with the decoder's attention painted on them."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from matplotlib import colormaps
from PIL import Image

LONG_SIDE = 168  # pixels of a picture in the page
FRAME_MS, LAST_FRAME_MS = 260, 900  # the last frame stays longer, which shows where the clip ends
COLORS, FIRST = "inferno", 0.5  # from which of its shades: even steps of brightness, readable without colour vision
BLACK, WHITE = 30, 158  # of the grey frames: dark enough that more attention is brighter, light enough to see things
GAP = 4  # pixels between frames side by side
STRONGEST = 0.92  # how much of the picture the brightest colour hides


def clip_pictures(frames: np.ndarray) -> list[Image.Image]:
    """(T,H,W,3) uint8 -> T pictures of the page's size."""
    size = _size(*frames.shape[1:3])
    return [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]


def painted_pictures(frames: np.ndarray, attention: np.ndarray) -> list[Image.Image]:
    """The same pictures with ``attention`` (T,h,w) painted on them, relative to the patch of the clip with the most.

    Colours are smooth between patches. The frames are grey and darker, so that every colour is attention.
    """
    heat = np.stack([_enlarged(one, _size(*frames.shape[1:3])) for one in attention])  # (T,H',W')
    heat = heat / max(float(attention.max()), np.finfo(np.float64).tiny)
    painted = []
    for picture, strength in zip(clip_pictures(frames), heat.clip(0, 1), strict=True):
        gray = _gray(np.asarray(picture.convert("L"), np.float64)[..., None])
        color = _color(strength)
        alpha = STRONGEST * strength[..., None]
        painted.append(Image.fromarray((gray * (1 - alpha) + color * alpha).round().astype(np.uint8)))
    return painted


def legend_colors(steps: int = 9) -> list[str]:
    """The colours of ``painted_pictures`` on mid-grey, from none to most, as ``#rrggbb``."""
    strength = np.linspace(0, 1, steps)[:, None]
    mixed = _gray(128.0) * (1 - STRONGEST * strength) + _color(strength[:, 0]) * STRONGEST * strength
    return ["#{:02x}{:02x}{:02x}".format(*(round(value) for value in row)) for row in mixed]


def animated(pictures: list[Image.Image]) -> str:
    """A data URI of an animated WebP: all browsers since 2020 show it, at a fifteenth of a GIF’s size."""
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    first, *rest = pictures
    return _uri(first, quality=72, save_all=True, append_images=rest, duration=durations, loop=0)


def sheet(pictures: list[Image.Image], columns: int = 4) -> str:
    """A data URI of all frames side by side, row by row: for paper, and for readers who want no moving pictures."""
    width, height = (side * 2 // 3 for side in pictures[0].size)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    whole = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), (128, 128, 128))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        whole.paste(picture.resize((width, height)), (column * (width + GAP), row * (height + GAP)))
    return _uri(whole, quality=72)


def _color(strength: np.ndarray) -> np.ndarray:
    """(…) of 0–1 -> (…,3) of 0–255."""
    return 255 * colormaps[COLORS](FIRST + (1 - FIRST) * strength)[..., :3]


def _gray(value):
    return BLACK + value * (WHITE - BLACK) / 255


def _size(height: int, width: int) -> tuple[int, int]:
    """(W', H') with a long side of LONG_SIDE, and even."""
    scale = LONG_SIDE / max(height, width)
    return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32), "F").resize(size, Image.Resampling.BICUBIC))


def _uri(picture: Image.Image, **options) -> str:
    content = io.BytesIO()
    picture.save(content, "WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
