"""Which frames are wanted of a video: small frozen values. What is known of the video in, frame numbers out.

What is known is the number of its frames, or, where a plan is ``by_time``, their times: int64, microseconds from the
first frame (``evl.video.timed``). Asked again, a plan gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evl.errors import VideoError
from evl.video.sampling import (
    clip_indices,
    clip_starts,
    random_clip_indices,
    random_segment_indices,
    segment_indices,
)
from evl.video.timed import TimedSampling

Known = int | np.ndarray


class Plan(Protocol):
    by_time: bool

    def indices(self, known: Known) -> Sequence[int]:
        """The frames to read, by number; some may come several times."""


@dataclass(frozen=True)
class Numbered:
    """Frames by their numbers. Raises VideoError, which names ``path``, for a video without them."""

    path: str
    numbers: tuple[int, ...]
    by_time = False

    def indices(self, known: int) -> tuple[int, ...]:
        if max(self.numbers) >= known:
            missing = min(number for number in self.numbers if number >= known)
            raise VideoError(self.path, f"has {known} frames, but frame {missing} was wanted")
        return self.numbers


@dataclass(frozen=True)
class Every:
    """All frames, or every ``step``-th."""

    step: int = 1
    by_time = False

    def indices(self, known: int) -> range:
        return range(0, known, self.step)


@dataclass(frozen=True)
class Spacing:
    """How the frames of a clip lie: ``stride`` frames apart, or ``frames_per_second`` of them in a second (dense), or
    one in each equal part of the video (segment). ``past_end``: what a training clip shows behind a video's end."""

    num_frames: int
    stride: int | None = None
    frames_per_second: float | None = None
    sampling: str = "dense"
    past_end: str = "last_sampled_frame"

    @property
    def timed(self) -> TimedSampling | None:
        return None if self.frames_per_second is None else TimedSampling(self.num_frames, self.frames_per_second)

    def num_inside(self, num_video_frames: int, start: int) -> int:
        """Of a dense clip by frames: how many of its frames lie inside the video; the others repeat."""
        return min(self.num_frames, (num_video_frames - 1 - start) // self.stride + 1)


@dataclass(frozen=True)
class RandomClip:
    """A training clip. ``seed``: all draws come from it, first the frames', then, by the generator of ``draw``, those
    of the augmentation."""

    spacing: Spacing
    seed: tuple[int, ...]

    @property
    def by_time(self) -> bool:
        return self.spacing.timed is not None

    def indices(self, known: Known) -> list[int]:
        return self.draw(known)[0]

    def draw(self, known: Known) -> tuple[list[int], np.random.Generator]:
        """(frames, the generator that drew them)."""
        how, generator = self.spacing, np.random.default_rng(list(self.seed))
        if (timed := how.timed) is not None:
            return timed.indices(known, timed.random_start(known, generator), how.past_end), generator
        if how.sampling == "segment":
            return random_segment_indices(known, num_frames=how.num_frames, generator=generator), generator
        options = dict(num_frames=how.num_frames, stride=how.stride, past_end=how.past_end)
        return random_clip_indices(known, **options, generator=generator), generator

    def num_valid(self, known: Known) -> tuple[int]:
        """How many of the clip's frames lie inside the video; the others repeat."""
        how = self.spacing
        if (timed := how.timed) is not None:
            return (timed.num_inside(known, timed.random_start(known, np.random.default_rng(list(self.seed)))),)
        if how.sampling == "segment":
            return (how.num_frames,)
        return (how.num_inside(known, self.indices(known)[0]),)


@dataclass(frozen=True)
class EvenClips:
    """Evaluation clips, evenly spaced over the video."""

    spacing: Spacing
    num_clips: int

    @property
    def by_time(self) -> bool:
        return self.spacing.timed is not None

    def clips(self, known: Known) -> list[list[int]]:
        """The frames of each clip."""
        how, count = self.spacing, self.num_clips
        if (timed := how.timed) is not None:
            return [timed.indices(known, start) for start in timed.starts(known, count)]
        if how.sampling == "segment":
            return segment_indices(known, num_frames=how.num_frames, num_clips=count)
        return clip_indices(known, num_frames=how.num_frames, stride=how.stride, num_clips=count)

    def indices(self, known: Known) -> list[int]:
        """The frames of all clips, each once, rising."""
        return sorted({number for clip in self.clips(known) for number in clip})

    def places(self, known: Known) -> list[list[int]]:
        """Where the frames of each clip stand among ``indices``."""
        place = {number: i for i, number in enumerate(self.indices(known))}
        return [[place[number] for number in clip] for clip in self.clips(known)]

    def num_valid(self, known: Known) -> tuple[int, ...]:
        """Of each clip, how many of its frames lie inside the video; the others repeat."""
        how = self.spacing
        if (timed := how.timed) is not None:
            return tuple(timed.num_inside(known, start) for start in timed.starts(known, self.num_clips))
        if how.sampling == "segment":
            return (how.num_frames,) * self.num_clips
        options = dict(num_frames=how.num_frames, stride=how.stride, num_clips=self.num_clips)
        return tuple(how.num_inside(known, start) for start in clip_starts(known, **options))
