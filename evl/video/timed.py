"""Which frames make a clip by time instead of by frames: microseconds in, frame numbers out.

A video of 60 frames a second and one of 15 then give clips of the same length, and of the same moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class TimedSampling:
    """Dense sampling by time: ``num_frames`` moments, ``frames_per_second`` of them in a second, wherever frames are.

    ``times`` is always int64 (F,): microseconds of each frame from the first one of the video (or of the part that is
    read), rising. A start is a moment, in microseconds: that of the nearest frame, unless a frame is shown for longer.

    A moment shows the last frame whose time is at most the moment plus a little less than half a frame, where a frame
    lasts the median distance of neighbors. So of two frames around a moment it is the nearer one, and the earlier one
    of two equally near; a picture that stands still for long is shown until the next one comes.
    """

    num_frames: int
    frames_per_second: float

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}, must be at least 1")
        if not 0 < self.frames_per_second < float("inf"):
            raise ValueError(f"frames_per_second is {self.frames_per_second}, must be above 0")

    def starts(self, times: np.ndarray, num_clips: int) -> list[int]:
        """Of the evaluation clips, evenly spaced over the time that a clip leaves free; its middle for one clip."""
        if num_clips < 1:
            raise ValueError(f"num_clips is {num_clips}, must be at least 1")
        slack = self._slack(times)
        moments = [slack // 2] if num_clips == 1 else [slack * i // (num_clips - 1) for i in range(num_clips)]
        return [_at_a_frame(times, moment) for moment in moments]

    def random_start(self, times: np.ndarray, generator: np.random.Generator) -> int:
        """Of a training clip: drawn from all microseconds from which on the clip fits into the video, or 0."""
        return _at_a_frame(times, int(generator.integers(self._slack(times) + 1)))

    def indices(self, times: np.ndarray, start: int, past_end: str = "last_video_frame") -> list[int]:
        """The frame of each moment of the clip from ``start`` on. Behind the video's end the last frame repeats
        (``last_video_frame``), or that of the last moment inside (``last_sampled_frame``)."""
        if past_end not in ("last_sampled_frame", "last_video_frame"):
            raise ValueError(f"past_end {past_end!r}: expected 'last_sampled_frame' or 'last_video_frame'")
        chosen = _shown(times, [start + step for step in self._steps()])
        if past_end == "last_sampled_frame":
            inside = self.num_inside(times, start)
            chosen = [chosen[min(t, inside - 1)] for t in range(self.num_frames)]
        return chosen

    def num_inside(self, times: np.ndarray, start: int) -> int:
        """How many of the clip's moments lie inside the video: at least 1."""
        end = int(times[-1]) + _tolerance(times)
        return max(1, sum(start + step <= end for step in self._steps()))

    def _steps(self) -> list[int]:
        """Microseconds from the first moment to each; exact, so that none is late by what was rounded before."""
        step = MICROSECONDS / Fraction(str(self.frames_per_second))  # the decimal number that was written
        return [round(t * step) for t in range(self.num_frames)]

    def _slack(self, times: np.ndarray) -> int:
        if len(times) < 1:
            raise ValueError("a video of no frames has no clips")
        return max(0, int(times[-1]) - self._steps()[-1])


def microseconds(times_seconds: Sequence[float] | np.ndarray) -> np.ndarray:
    """Times of frames in seconds -> int64, from the first one."""
    times = np.asarray(times_seconds, np.float64)
    return np.rint((times - times[0]) * MICROSECONDS).astype(np.int64)


def _shown(times: np.ndarray, moments: Sequence[int]) -> list[int]:
    """The frame that each moment shows."""
    latest = np.array(moments, np.int64) + _tolerance(times)
    return (np.searchsorted(times, latest, side="right") - 1).tolist()


def _at_a_frame(times: np.ndarray, moment: int) -> int:
    """The time of the frame that a moment shows, if it is half a frame away at most: so that at a constant rate all
    moments of a clip meet frames, where they can, and do not fall between two."""
    (found,) = _shown(times, [moment])
    time = int(times[found])
    return time if abs(time - moment) <= _tolerance(times) + 3 else moment  # 3: two equally near ones, and rounding


def _tolerance(times: np.ndarray) -> int:
    """A little less than half of what a frame lasts: the lower median of distances, which a pause does not change."""
    if len(times) < 2:
        return 0
    middle = (len(times) - 2) // 2
    # 3: so that no two equally near frames are told apart by what was rounded
    return max(0, int(np.partition(np.diff(times), middle)[middle]) - 3) // 2
