"""Plans: small frozen values that say which frames of a video are wanted.

``plan.indices(known)`` returns frame numbers, and the same ones in each call. ``known`` is the number of the video's
frames. If a plan is ``by_time``, ``known`` holds the frames' times instead: int64, microseconds from the first frame
(``evl.video.sampling``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evl.errors import VideoError
from evl.video.sampling import (
    TimedSampling,
    clip_indices,
    clip_starts,
    random_clip_indices,
    random_segment_indices,
    segment_indices,
)

Known = int | np.ndarray


class Plan(Protocol):
    by_time: bool

    def indices(self, known: Known) -> Sequence[int]:
        """The numbers of the frames to read; a number may appear several times."""


@dataclass(frozen=True)
class Numbered:
    """A fixed list of frame numbers. ``indices`` raises VideoError about ``path`` if the video has fewer frames."""

    path: str
    numbers: tuple[int, ...]
    by_time = False

    def indices(self, known: int) -> tuple[int, ...]:
        if max(self.numbers) >= known:
            missing = min(number for number in self.numbers if number >= known)
            raise VideoError(self.path, f"has {known} frames, but frame {missing} was wanted")
        return self.numbers


@dataclass(frozen=True)
class Spacing:
    """The distances between the frames of a clip.

    Dense sampling takes frames that are ``stride`` frames apart, or ``frames_per_second`` frames for each second of the
    video. Segment sampling takes one frame from each equal part of the video. ``past_end``: the frame that a training
    clip repeats after the video's end.
    """

    num_frames: int
    stride: int | None = None
    frames_per_second: float | None = None
    sampling: str = "dense"
    past_end: str = "last_sampled_frame"

    @property
    def timed(self) -> TimedSampling | None:
        return None if self.frames_per_second is None else TimedSampling(self.num_frames, self.frames_per_second)

    def num_inside(self, num_video_frames: int, start: int) -> int:
        """The number of frames of a dense clip with a stride that are inside the video; the others repeat one."""
        return min(self.num_frames, (num_video_frames - 1 - start) // self.stride + 1)


@dataclass(frozen=True)
class RandomClip:
    """A training clip at a random place.

    All random numbers come from ``seed``: first those of the frames, then, with the generator that ``draw`` returns,
    those of the augmentation.
    """

    spacing: Spacing
    seed: tuple[int, ...]

    @property
    def by_time(self) -> bool:
        return self.spacing.timed is not None

    def indices(self, known: Known) -> list[int]:
        return self.draw(known)[0]

    def draw(self, known: Known) -> tuple[list[int], np.random.Generator]:
        """(frames, the generator that drew them)."""
        spacing, generator = self.spacing, np.random.default_rng(list(self.seed))
        if (timed := spacing.timed) is not None:
            return timed.indices(known, timed.random_start(known, generator), spacing.past_end), generator
        if spacing.sampling == "segment":
            return random_segment_indices(known, num_frames=spacing.num_frames, generator=generator), generator
        options = dict(num_frames=spacing.num_frames, stride=spacing.stride, past_end=spacing.past_end)
        return random_clip_indices(known, **options, generator=generator), generator

    def num_valid(self, known: Known) -> tuple[int]:
        """The number of the clip's frames that are inside the video, as a tuple of one; the others repeat a frame."""
        spacing = self.spacing
        if (timed := spacing.timed) is not None:
            return (timed.num_inside(known, timed.random_start(known, np.random.default_rng(list(self.seed)))),)
        if spacing.sampling == "segment":
            return (spacing.num_frames,)
        return (spacing.num_inside(known, self.indices(known)[0]),)


@dataclass(frozen=True)
class EvenClips:
    """``num_clips`` evaluation clips, evenly spaced over the video."""

    spacing: Spacing
    num_clips: int

    @property
    def by_time(self) -> bool:
        return self.spacing.timed is not None

    def clips(self, known: Known) -> list[list[int]]:
        """The frame numbers of each clip."""
        spacing, count = self.spacing, self.num_clips
        if (timed := spacing.timed) is not None:
            return [timed.indices(known, start) for start in timed.starts(known, count)]
        if spacing.sampling == "segment":
            return segment_indices(known, num_frames=spacing.num_frames, num_clips=count)
        return clip_indices(known, num_frames=spacing.num_frames, stride=spacing.stride, num_clips=count)

    def indices(self, known: Known) -> list[int]:
        """The frame numbers of all clips, each once, in rising order."""
        return sorted({number for clip in self.clips(known) for number in clip})

    def places(self, known: Known) -> list[list[int]]:
        """For each clip, the positions of its frames in ``indices``."""
        place = {number: i for i, number in enumerate(self.indices(known))}
        return [[place[number] for number in clip] for clip in self.clips(known)]

    def num_valid(self, known: Known) -> tuple[int, ...]:
        """For each clip, the number of its frames that are inside the video; the others repeat a frame."""
        spacing = self.spacing
        if (timed := spacing.timed) is not None:
            return tuple(timed.num_inside(known, start) for start in timed.starts(known, self.num_clips))
        if spacing.sampling == "segment":
            return (spacing.num_frames,) * self.num_clips
        options = dict(num_frames=spacing.num_frames, stride=spacing.stride, num_clips=self.num_clips)
        return tuple(spacing.num_inside(known, start) for start in clip_starts(known, **options))
