"""The windows of a timeline: which frames each has, and at what time it is. Only arithmetic.

Windows have the model's own frames and distances between them. They start at the beginning and follow each other by a
fixed step, until one reaches the video's end. Frames past the end repeat the video's last frame, as in evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from evl.errors import ConfigError
from evl.video.plans import Spacing
from evl.video.sampling import MICROSECONDS, TimedSampling, segment_indices, shown_at, tolerance_of

WINDOW_SECONDS = 4.0  # of models that take segments: about a clip of Something-Something


class Windows(NamedTuple):
    """``frames`` (n,T): the frame numbers of each window. ``times`` (n): its middle, in microseconds; they rise."""

    frames: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class WindowPlan:
    """Windows with the frames of ``spacing``, one every ``every_seconds`` or ``every_frames``.

    Without either, one window starts at each sampled frame: after ``stride`` frames, or 1/``frames_per_second`` s.

    A model that takes one frame from each of T equal segments does not know how long a part of an untrimmed video is.
    For it, a window is ``window_seconds`` long, and its frames are T/``window_seconds`` per second. A video that is not
    longer than one window has a single window, with the frames of evaluation.

    Raises ConfigError for wrong numbers, for both steps at once, or ``window_seconds`` with dense sampling.
    """

    spacing: Spacing
    every_seconds: float | None = None
    every_frames: int | None = None
    window_seconds: float | None = None

    def __post_init__(self):
        if self.every_seconds is not None and self.every_frames is not None:
            raise ConfigError("give `every_seconds` or `every_frames`, not both")
        if self.every_seconds is not None and not 1e-6 <= self.every_seconds < 1e6:
            raise ConfigError(f"`every_seconds={self.every_seconds:g}`: expected seconds above 0")
        if self.every_frames is not None and self.every_frames < 1:
            raise ConfigError(f"`every_frames={self.every_frames}`: expected at least 1 frame")
        if self.window_seconds is not None and self.spacing.sampling != "segment":
            raise ConfigError(
                "`window_seconds` goes with models that take one frame from each segment; the frames of this model "
                "have a fixed distance: load it with another `num_frames`, `stride` or `frames_per_second`"
            )
        if self.window_seconds is not None and not 0.01 <= self.window_seconds < 1e6:
            raise ConfigError(f"`window_seconds={self.window_seconds:g}`: expected at least 0.01 seconds")

    @property
    def timed(self) -> TimedSampling | None:
        """Sampling by time; None for frames that are a stride apart."""
        if self.spacing.sampling == "segment":
            return TimedSampling(self.spacing.num_frames, self.spacing.num_frames / self.seconds)
        return self.spacing.timed

    def windows(self, times: np.ndarray) -> Windows:
        """The windows of a video whose frames are at ``times``: int64 microseconds from the first frame, rising."""
        num_frames, is_segment = self.spacing.num_frames, self.spacing.sampling == "segment"
        if is_segment and times[-1] <= self.seconds * MICROSECONDS:
            frames = np.array(segment_indices(len(times), num_frames=num_frames), np.int64)
            return Windows(frames, times[-1:] // 2)
        timed = self.timed
        if timed is not None:
            starts, steps = self.moments(times), np.array(timed.steps(), np.int64)
            inside = int(np.searchsorted(starts, times[-1] + tolerance_of(times) - steps[-1], side="right"))
            starts = starts[: max(inside, _needed(starts, timed.slack(times)))]
            frames = shown_at(times, starts[:, None] + steps)
            ends = starts + steps[-1]
            ends = np.where(ends <= times[-1] + tolerance_of(times), ends, times[-1])
            return Windows(frames, (starts + ends) // 2)
        span = (num_frames - 1) * self.spacing.stride
        if self.every_seconds is None:
            starts = np.arange(0, len(times), self.every_frames or self.spacing.stride)
        else:
            starts = np.unique(shown_at(times, self.moments(times)))
        starts = starts[: _needed(starts, max(0, len(times) - 1 - span))]
        frames = np.minimum(starts[:, None] + self.spacing.stride * np.arange(num_frames), len(times) - 1)
        return Windows(frames, (times[frames[:, 0]] + times[frames[:, -1]]) // 2)

    def moments(self, times: np.ndarray) -> np.ndarray:
        """The moments inside the video at which windows may start, in microseconds."""
        if self.every_frames is not None:
            return times[:: self.every_frames]
        every = self.every_seconds or 1 / self.timed.frames_per_second
        moments = self.moment(np.arange(int(times[-1] / (every * MICROSECONDS)) + 1))
        return moments[moments <= times[-1]]

    def moment(self, number: int | np.ndarray) -> np.ndarray:
        """The start of window ``number``, in microseconds, where windows start by time."""
        every = self.every_seconds or 1 / self.timed.frames_per_second
        return np.rint(np.asarray(number) * (every * MICROSECONDS)).astype(np.int64)

    def of_single_frames(self) -> WindowPlan:
        """The same sampled frames, each a window of its own."""
        timed = self.timed
        rate = None if timed is None else timed.frames_per_second
        return WindowPlan(replace(self.spacing, num_frames=1, frames_per_second=rate, sampling="dense"))

    @property
    def seconds(self) -> float:
        """How long a window of segments is."""
        return self.window_seconds or WINDOW_SECONDS


def _needed(starts: np.ndarray, slack: int) -> int:
    """The number of windows until one reaches the video's end: all that start before ``slack``, and the next one."""
    return int(np.searchsorted(starts, slack, side="left")) + 1
