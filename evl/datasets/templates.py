"""The templates of `motions`: the places, sizes and angles of all objects in each frame of a video.

This module ensures that a single frame does not show the class. A motion is drawn at random by its middle and its
extent, never by its start, and its timing is as likely as the reversed timing. So two opposite classes have the same
frames in opposite order. An object that does not move looks like one frame of a motion: its size, angle and place are
drawn in the same way in all classes, and the motion either runs or is stopped at a random frame.

Places are in pixels from the center of a SIZE × SIZE frame, x to the right, y down. Angles are in degrees, clockwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

SIZE = 96  # pixels, height and width of a video
NUM_FRAMES = (16, 24)  # the smallest and the largest number of frames of a video
MIDDLE_SIZE = (26.0, 34.0)  # pixels: side of a picture's cell in the middle of its change of size
LOG_ZOOM = (0.22, 0.34)  # half the change of the logarithm of size, so the size changes by a factor of 1.6 to 2
HALF_TURN = (28.0, 55.0)  # degrees
MIDDLE_ANGLE = (-30.0, 30.0)  # degrees
HALF_WAY = (11.0, 18.0)  # pixels to the left, right, up or down
PALE = 0.1  # share of objects that are half transparent in the whole video, as if they were just appearing
TOUCH = 0.85  # share of the sum of two objects' reaches at which they touch; less than 1, because outlines are curved


@dataclass(frozen=True)
class Track:
    """One object in the F frames of a video; all (F,) float64.

    ``size``: side of its picture's cell, in pixels. ``opacity``: 0 is invisible, 1 is opaque.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A video before it is drawn.

    ``tracks``: first the template's object, then the second one, then objects that do not move. ``order``: the numbers
    of the tracks from back to front. ``shake`` (F,2): pixels by which all objects and the background move.
    """

    template: str
    tracks: tuple[Track, ...]
    order: tuple[int, ...]
    shake: np.ndarray

    @property
    def num_frames(self) -> int:
        return len(self.shake)


@dataclass(frozen=True)
class _Pair:
    """The sizes (F,), angles (F,) and reaches (16,) of two objects, see ``Object.reach``."""

    sizes: tuple[np.ndarray, np.ndarray]
    angles: tuple[np.ndarray, np.ndarray]
    reaches: tuple[np.ndarray, np.ndarray]

    def contact(self, direction: np.ndarray) -> float:
        """The pixels between the centers when the first object touches the second in a direction, at largest size."""
        degrees = np.degrees(np.arctan2(direction[1], direction[0]))
        total = 0.0
        for size, angle, reach, sign in zip(self.sizes, self.angles, self.reaches, (0, 180), strict=True):
            step = round((degrees + sign - angle[len(angle) // 2]) / 360 * len(reach)) % len(reach)
            total += reach[step] * size.max()
        return TOUCH * total


def draw_scene(template: str, reaches: Sequence[np.ndarray], rng: Generator) -> Scene:
    """Draws a random scene of a template; ``reaches`` (16,) are those of its ``num_objects`` objects."""
    count = int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1))
    kind, sign = TEMPLATES[template]
    sizes, angles = [], []
    for place in range(len(reaches)):
        main = place == 0
        middle, zoom = rng.uniform(*MIDDLE_SIZE), rng.uniform(*LOG_ZOOM)
        sizes.append(middle * np.exp(zoom * _run(sign if main and kind == "size" else 0, count, rng)))
        middle, turn = rng.uniform(*MIDDLE_ANGLE), rng.uniform(*HALF_TURN)
        angles.append(middle + turn * _run(sign if main and kind == "angle" else 0, count, rng))
    pair = _Pair(tuple(sizes[:2]), tuple(angles[:2]), tuple(reaches[:2]))
    room = [SIZE / 2 - 0.35 * size.mean() for size in sizes]
    if kind in PAIRS:
        first, second = _into_frame(PAIRS[kind](pair, count, rng), room[:2], rng)
    else:
        first, second = _alone(pair, kind, sign, room, count, rng)
    places = [first, second]
    for place in range(2, len(reaches)):
        places.append(_aside(places, room[place], rng))
    tracks = []
    for place, (where, size, angle) in enumerate(zip(places, sizes, angles, strict=True)):
        opacity = np.full(count, rng.uniform(0.45, 1) if rng.random() < PALE else 1.0)
        if place == 0 and kind == "opacity":
            opacity = opacity * _fade(sign, count, rng)
        tracks.append(Track(where[:, 0], where[:, 1], size, angle, opacity))
    behind = [*range(2, len(tracks))]
    order = (*behind, 0, 1) if rng.random() < 0.5 else (*behind, 1, 0)
    return Scene(template, tuple(tracks), order, draw_shake(count, rng))


def num_objects(template: str, rng: Generator) -> int:
    """Draws the number of objects, two to four, so that all classes have the same distribution of visible objects.

    Where an object appears or disappears, there is one object less in about half of the frames. So these templates have
    3 or 4 objects, of which 3 and 2, or 4 and 3, are visible. The others have 2, 3 or 4 in the shares ¼, ½, ¼.
    """
    if TEMPLATES[template][0] == "opacity":
        return int(rng.choice([3, 4]))
    return int(rng.choice([2, 3, 3, 4]))


def _ramp(count: int, rng: Generator, latest: float = 0.3) -> np.ndarray:
    """(F,) from −1 to 1, with a random start, end and speed; reversed and negated it is equally likely."""
    late, early = rng.uniform(0, latest, 2)
    bend, smooth = rng.uniform(-0.6, 0.6), rng.uniform(0, 1)
    time = np.linspace(0, 1, count)
    u = np.clip((time - late) / (1 - late - early), 0, 1)
    u = u + bend * u * (1 - u)
    u = (1 - smooth) * u + smooth * u * u * (3 - 2 * u)
    return 2 * u - 1


def _run(sign: int, count: int, rng: Generator) -> np.ndarray:
    """(F,) in −1…1: forwards, backwards, or, for sign 0, stopped at a random frame."""
    ramp = _ramp(count, rng)
    return sign * ramp if sign else np.full(count, ramp[rng.integers(count)])


def _fade(sign: int, count: int, rng: Generator) -> np.ndarray:
    """(F,) from 0 to 1 or back, within a few frames around the middle."""
    middle, frames = rng.uniform(0.3, 0.7) * (count - 1), rng.uniform(0.5, 5)
    return np.clip(0.5 + sign * (np.arange(count) - middle) / frames, 0, 1)


def _unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _alone(pair: _Pair, kind: str, sign: int, room: Sequence[float], count: int, rng: Generator):
    """The places (F,2) of an object that moves along an axis, or is stopped on its way, and of a second object.

    The second object does not move. Its distance is drawn as in the classes of two objects, but the first object must
    not pass it.
    """
    for _ in range(100):
        axis = {"x": 0, "y": 1}.get(kind, int(rng.integers(2)))
        half = rng.uniform(*HALF_WAY)
        middle = rng.uniform(-room[0], room[0], 2)
        middle[axis] = rng.uniform(-room[0] + half, room[0] - half)
        first = np.repeat(middle[None], count, 0)
        first[:, axis] += half * _run(sign if kind in "xy" else 0, count, rng)
        others = PAIRS[str(rng.choice(list(PAIRS)))](pair, count, rng)
        frame = rng.integers(count)
        second = first[rng.integers(count)] + others[1][frame] - others[0][frame]
        if abs(second).max() > room[1]:
            continue
        if kind in "xy":
            along = abs(second[axis] - middle[axis]) - half
            aside = abs(second[1 - axis] - middle[1 - axis])
            direction = _unit(rng.uniform(0, 2 * np.pi))
            direction[axis], direction[1 - axis] = np.sign(second[axis] - middle[axis]) or 1, 0
            touch = pair.contact(direction)
            if along < 0 and aside < 1.1 * touch:
                continue
        break
    return first, np.repeat(second[None], count, 0)


def _past(pair: _Pair, count: int, rng: Generator):
    """The first object moves past the second, in front of it, behind it or just beside it."""
    along = _unit(rng.uniform(0, 2 * np.pi))
    across = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
    half = rng.uniform(22, 31)
    way = rng.uniform(-0.2, 0.2) * half + half * _ramp(count, rng)
    first = way[:, None] * along + rng.uniform(0.45, 0.95) * pair.contact(across) * across
    return first, np.zeros((count, 2))


def _collide(pair: _Pair, count: int, rng: Generator):
    """Both objects move towards each other until they touch, and stop at once."""
    along = _unit(rng.uniform(0, 2 * np.pi))
    late, hit = rng.uniform(0, 0.25), rng.uniform(0.5, 0.75)
    share, travel = rng.uniform(0.35, 0.65), rng.uniform(28, 42)
    u = np.clip((np.linspace(0, 1, count) - late) / (hit - late), 0, 1)
    left = travel * (1 - u) * (1 + rng.uniform(-0.2, 0.5) * u)
    gap = pair.contact(along) + left
    return -(share * gap)[:, None] * along, ((1 - share) * gap)[:, None] * along


def _push(pair: _Pair, count: int, rng: Generator):
    """The second object moves up to the first and pushes it, then stops; the first slides on, slower and slower."""
    along = _unit(rng.uniform(0, 2 * np.pi))
    late, hit, end = rng.uniform(0, 0.15), rng.uniform(0.3, 0.45), rng.uniform(0.75, 1)
    run_up, slide, shoved = rng.uniform(10, 18), rng.uniform(20, 32), rng.uniform(0.1, 0.4)
    time = np.linspace(0, 1, count)
    before, after = np.clip((time - late) / (hit - late), 0, 1), np.clip((time - hit) / (end - hit), 0, 1)
    pushed = slide * (1 - (1 - after) ** 2)
    pusher = run_up * (before - 1) + np.minimum(pushed, shoved * slide) - pair.contact(-along)
    return pushed[:, None] * along, pusher[:, None] * along


def _swap(pair: _Pair, count: int, rng: Generator):
    """Both objects move at the same time, around each other, to the place of the other."""
    along = _unit(rng.uniform(0, 2 * np.pi))
    across = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
    touch = pair.contact(along)
    long, wide = max(rng.uniform(15, 22), 0.55 * touch), rng.uniform(0.3, 0.5) * touch
    turn = (np.pi / 2 * (_ramp(count, rng) + 1))[:, None]
    way = long * np.cos(turn) * along + wide * np.sin(turn) * across
    return way, -way


PAIRS: dict[str, Callable] = {"past": _past, "collide": _collide, "push": _push, "swap": _swap}
# what changes, and in which direction
TEMPLATES: dict[str, tuple[str, int]] = {
    "moving something left": ("x", -1),
    "moving something right": ("x", 1),
    "moving something up": ("y", -1),
    "moving something down": ("y", 1),
    "something coming closer": ("size", 1),
    "something going away": ("size", -1),
    "turning something clockwise": ("angle", 1),
    "turning something counter-clockwise": ("angle", -1),
    "something appearing": ("opacity", 1),
    "something disappearing": ("opacity", -1),
    "moving something past something": ("past", 0),
    "something colliding with something and both stopping": ("collide", 0),
    "pushing something so that it slides": ("push", 0),
    "two somethings swapping places": ("swap", 0),
}


def _into_frame(places, room: Sequence[float], rng: Generator):
    """Moves both places (F,2) together so that both stay within ±room; if that is impossible, to the middle."""
    low = np.max([-space - where.min(0) for where, space in zip(places, room, strict=True)], 0)
    high = np.min([space - where.max(0) for where, space in zip(places, room, strict=True)], 0)
    shift = np.where(low < high, low + (high - low) * rng.uniform(0, 1, 2), (low + high) / 2)
    return [where + shift for where in places]


def _aside(places: Sequence[np.ndarray], room: float, rng: Generator) -> np.ndarray:
    """(F,2): a place for one more object; of 12 random places, the one that is farthest from the other objects."""
    tries = rng.uniform(-room, room, (12, 2))
    away = np.min([np.linalg.norm(tries[:, None] - where[None], axis=2).min(1) for where in places], 0)
    return np.repeat(tries[away.argmax()][None], len(places[0]), 0)


def draw_shake(count: int, rng: Generator) -> np.ndarray:
    """(F,2): the movement of a trembling camera in pixels, of random strength and speed."""
    strength, memory = rng.uniform(0, 1.6), rng.uniform(0.3, 0.9)
    shake = rng.normal(0, 1, (count, 2))
    for i in range(1, count):
        shake[i] = memory * shake[i - 1] + np.sqrt(1 - memory**2) * shake[i]
    return strength * shake
