"""Timelines that no model made, with the segments that are hard to write down."""

import numpy as np

from evl.inference.segments import Segment
from evl.inference.timeline import Timeline

NAMES = ('run & <b>"jump"</b>', "a --> b", "🏃‍♀️ runs", "ריצה", "fenêtre", "with  two blanks")
SEGMENTS = (
    Segment(NAMES[0], 0.0, 1.5, 0.9),
    Segment(NAMES[1], 1.0, 2.25, 0.8),  # overlaps another class
    Segment(NAMES[2], 2.0, 2.0004, 0.6),  # shorter than a millisecond
    Segment(NAMES[4], 2.25, 3.0, 0.5),
    Segment(NAMES[4], 3.0, 3.75, 0.5),  # touches one of its own class
    Segment(NAMES[3], 90000.123, 90001.5, 0.55),  # beyond a day
    Segment(NAMES[0], 359999.9996, 360001.0, 0.5),  # beyond 99 hours
)


def made(path, segments=SEGMENTS, names=NAMES, *, rate=25.0, end=400000.0):
    return Timeline(
        str(path), np.zeros(1), np.zeros((1, len(names))), np.zeros((1, 2), int), tuple(names), tuple(segments),
        end_seconds=end, frames_per_second=rate, protocol="1 clip & <1> crop",
    )  # fmt: skip
