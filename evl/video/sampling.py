"""Which frames make a clip: integers in, integers out (docs/method.md section 7).

Dense sampling takes ``num_frames`` frames ``stride`` apart; segment sampling one frame from each of ``num_frames``
equal parts of the video. Random draws take an explicit generator.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def clip_starts(num_video_frames: int, *, num_frames: int, stride: int, num_clips: int) -> list[int]:
    """First frames of ``num_clips`` evaluation clips, evenly spaced over the video; its middle if there is one clip.

    start_i = round(slack · i / (num_clips − 1)), Python's round; slack = frames the clip does not span, at least 0.
    """
    _check(num_video_frames, num_frames, stride, num_clips)
    slack = max(0, num_video_frames - ((num_frames - 1) * stride + 1))
    if num_clips == 1:
        return [slack // 2]
    return [round(slack * i / (num_clips - 1)) for i in range(num_clips)]


def clip_indices(num_video_frames: int, *, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    """Frame indices of the dense evaluation clips; past the end the video's last frame repeats."""
    starts = clip_starts(num_video_frames, num_frames=num_frames, stride=stride, num_clips=num_clips)
    return [[min(start + t * stride, num_video_frames - 1) for t in range(num_frames)] for start in starts]


def segment_indices(num_video_frames: int, *, num_frames: int, num_clips: int = 1) -> list[list[int]]:
    """Frame indices of segment evaluation clips: the middle of each segment; several clips spread evenly inside it."""
    _check(num_video_frames, num_frames, 1, num_clips)
    # position (2c+1)/(2·num_clips) of each segment, in integers
    return [
        [num_video_frames * (2 * num_clips * t + 2 * c + 1) // (2 * num_clips * num_frames) for t in range(num_frames)]
        for c in range(num_clips)
    ]


def random_clip_indices(
    num_video_frames: int, *, num_frames: int, stride: int, past_end: str, generator: np.random.Generator
) -> list[int]:
    """A training clip with a random start. Where a short video ends, ``past_end`` says what repeats:
    ``last_sampled_frame`` (the last of this clip's own frames) or ``last_video_frame``."""
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
    """A training clip with one random frame from each of ``num_frames`` equal segments."""
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
