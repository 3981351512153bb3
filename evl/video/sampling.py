"""The frame numbers of a clip, computed from integers (docs/method.md section 7).

Dense sampling takes ``num_frames`` frames that are ``stride`` apart. Segment sampling takes one frame from each of
``num_frames`` equal parts of the video. Random draws use the generator that the caller passes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


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
