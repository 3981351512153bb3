"""The frame numbers of a clip, computed from integers (docs/method.md section 7).

Dense sampling takes ``num_frames`` frames that are ``stride`` apart, or by time (``TimedSampling``): then videos of 60
and of 15 frames per second give clips of the same duration, at the same moments. Segment sampling takes one frame from
each of ``num_frames`` equal parts of the video. Random draws use the generator that the caller passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

MICROSECONDS = 1_000_000


def clip_starts(num_video_frames: int, *, num_frames: int, stride: int, num_clips: int) -> list[int]:
    """The first frames of ``num_clips`` evaluation clips, evenly spaced over the video; a single clip is in its middle.

    start_i = round(slack · i / (num_clips − 1)) with Python's round, where slack is the number of frames that a clip
    does not span, at least 0.
    """
    _check(num_video_frames, num_frames, stride, num_clips)
    slack = max(0, num_video_frames - ((num_frames - 1) * stride + 1))
    if num_clips == 1:
        return [slack // 2]
    return [round(slack * i / (num_clips - 1)) for i in range(num_clips)]


def clip_indices(num_video_frames: int, *, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    """The frame numbers of dense evaluation clips; after the video's end, its last frame repeats."""
    starts = clip_starts(num_video_frames, num_frames=num_frames, stride=stride, num_clips=num_clips)
    return [[min(start + t * stride, num_video_frames - 1) for t in range(num_frames)] for start in starts]


def segment_indices(num_video_frames: int, *, num_frames: int, num_clips: int = 1) -> list[list[int]]:
    """The frame numbers of segment evaluation clips.

    One clip has the middle frame of each segment; the frames of several clips are evenly spaced inside each segment.
    """
    _check(num_video_frames, num_frames, 1, num_clips)
    # clip c is at (2c+1)/(2·num_clips) of each segment, computed in integers
    return [
        [num_video_frames * (2 * num_clips * t + 2 * c + 1) // (2 * num_clips * num_frames) for t in range(num_frames)]
        for c in range(num_clips)
    ]


def random_clip_indices(
    num_video_frames: int, *, num_frames: int, stride: int, past_end: str, generator: np.random.Generator
) -> list[int]:
    """The frame numbers of a dense training clip with a random start.

    ``past_end`` is the frame that repeats after a short video's end: ``last_sampled_frame`` (the clip's own last frame
    inside the video) or ``last_video_frame``.
    """
    _check(num_video_frames, num_frames, stride, 1)
    slack = max(0, num_video_frames - ((num_frames - 1) * stride + 1))
    start = int(generator.integers(slack + 1))
    if past_end == "last_sampled_frame":
        last = start + (num_video_frames - 1 - start) // stride * stride
    elif past_end == "last_video_frame":
        last = num_video_frames - 1
    else:
        raise ValueError(f"past_end {past_end!r}: expected 'last_sampled_frame' or 'last_video_frame'")
    return [min(start + t * stride, last) for t in range(num_frames)]


def random_segment_indices(num_video_frames: int, *, num_frames: int, generator: np.random.Generator) -> list[int]:
    """The frame numbers of a training clip with one random frame from each of ``num_frames`` equal segments."""
    _check(num_video_frames, num_frames, 1, 1)
    starts = [num_video_frames * t // num_frames for t in range(num_frames + 1)]
    return [int(generator.integers(a, max(b, a + 1))) for a, b in pairwise(starts)]


def _check(num_video_frames: int, num_frames: int, stride: int, num_clips: int) -> None:
    for name, value in (
        ("num_video_frames", num_video_frames),
        ("num_frames", num_frames),
        ("stride", stride),
        ("num_clips", num_clips),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")


@dataclass(frozen=True)
class TimedSampling:
    """Dense sampling by time: a clip is ``num_frames`` moments, with ``frames_per_second`` moments in a second.

    ``times`` is always int64 (F,): the rising times of the frames in microseconds, from the first frame of the video or
    of the part that is read. The start of a clip is a moment in microseconds: the time of the nearest frame, unless
    that frame is more than half a frame away.

    For each moment, the clip takes the last frame whose time is at most the moment plus a little less than half a
    frame. A frame's duration is the median distance of neighbors. So the clip takes the nearer of two frames around a
    moment, and the earlier one if both are equally near. A picture that is shown for long is taken until the next one.
    """

    num_frames: int
    frames_per_second: float

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}, must be at least 1")
        if not 0 < self.frames_per_second < float("inf"):
            raise ValueError(f"frames_per_second is {self.frames_per_second}, must be above 0")

    def starts(self, times: np.ndarray, num_clips: int) -> list[int]:
        """The starts of the evaluation clips, evenly spaced over the video; a single clip is in its middle."""
        if num_clips < 1:
            raise ValueError(f"num_clips is {num_clips}, must be at least 1")
        slack = self.slack(times)
        moments = [slack // 2] if num_clips == 1 else [slack * i // (num_clips - 1) for i in range(num_clips)]
        return [_at_a_frame(times, moment) for moment in moments]

    def random_start(self, times: np.ndarray, generator: np.random.Generator) -> int:
        """The random start of a training clip, such that the clip fits into the video; 0 if the video is shorter."""
        return _at_a_frame(times, int(generator.integers(self.slack(times) + 1)))

    def indices(self, times: np.ndarray, start: int, past_end: str = "last_video_frame") -> list[int]:
        """The frame numbers of the clip that begins at ``start``.

        After the video's end, the video's last frame repeats (``last_video_frame``), or the frame of the clip's last
        moment inside the video (``last_sampled_frame``).
        """
        if past_end not in ("last_sampled_frame", "last_video_frame"):
            raise ValueError(f"past_end {past_end!r}: expected 'last_sampled_frame' or 'last_video_frame'")
        chosen = shown_at(times, [start + step for step in self.steps()]).tolist()
        if past_end == "last_sampled_frame":
            inside = self.num_inside(times, start)
            chosen = [chosen[min(t, inside - 1)] for t in range(self.num_frames)]
        return chosen

    def num_inside(self, times: np.ndarray, start: int) -> int:
        """The number of the clip's moments that are inside the video, at least 1."""
        end = int(times[-1]) + tolerance_of(times)
        return max(1, sum(start + step <= end for step in self.steps()))

    def steps(self) -> list[int]:
        """Microseconds from the first moment to each moment. Fractions keep rounding errors from adding up."""
        step = MICROSECONDS / Fraction(str(self.frames_per_second))  # exactly the decimal number in the settings
        return [round(t * step) for t in range(self.num_frames)]

    def slack(self, times: np.ndarray) -> int:
        """The latest start of a clip that fits into the video, in microseconds, at least 0."""
        if len(times) < 1:
            raise ValueError("a video of no frames has no clips")
        return max(0, int(times[-1]) - self.steps()[-1])


def microseconds(times_seconds: Sequence[float] | np.ndarray) -> np.ndarray:
    """The times of frames, in seconds -> microseconds from the first frame, int64."""
    times = np.asarray(times_seconds, np.float64)
    return np.rint((times - times[0]) * MICROSECONDS).astype(np.int64)


def shown_at(times: np.ndarray, moments: Sequence[int] | np.ndarray) -> np.ndarray:
    """The numbers of the frames for moments, in the shape of ``moments`` (see ``TimedSampling``)."""
    latest = np.asarray(moments, np.int64) + tolerance_of(times)
    return np.searchsorted(times, latest, side="right") - 1


def _at_a_frame(times: np.ndarray, moment: int) -> int:
    """The time of the frame for a moment if it is at most half a frame away, else the moment itself.

    So at a constant frame rate, the moments of a clip fall on frames, where possible, and not between two.
    """
    (found,) = shown_at(times, [moment])
    time = int(times[found])
    return time if abs(time - moment) <= tolerance_of(times) + 3 else moment  # 3: for rounding, see tolerance_of


def tolerance_of(times: np.ndarray) -> int:
    """A little less than half of a frame's duration: of the lower median distance, which a pause does not change."""
    return near_half(lower_median(np.diff(times))) if len(times) > 1 else 0


def lower_median(distances: np.ndarray) -> int:
    middle = (len(distances) - 1) // 2
    return int(np.partition(distances, middle)[middle])


def near_half(distance: int) -> int:
    """A little less than half, because rounding must not decide between two equally near frames."""
    return max(0, distance - 3) // 2
