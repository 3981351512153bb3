"""A notice about videos that are much longer than the views of them: each still gets only one label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from evl.config import ClipConfig
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode.index import frame_index
from evl.video.decode.reader import find_part

LEAST_FRAMES = 750  # 30 s at 25 frames per second; a video of so many frames or fewer is never called long
LEAST_SHARE = 0.1  # of a video; if its dense views span less, it is long
MOST_FRAMES_APART = 125  # 5 s at 25 frames per second, between neighboring frames of segment sampling
REMEDY = "cut them by start_seconds and end_seconds in a manifest"


class Length(NamedTuple):
    """The length of a video or of a part; ``seconds`` from its first frame to its last, None if not measured."""

    num_frames: int
    seconds: float | None = None


def is_long(length: Length, clip: ClipConfig, num_clips: int) -> bool:
    """Whether a video has more than 750 frames, and its ``num_clips`` clips together span less than a tenth of it.

    With segment sampling, the second condition is that the sampled frames are more than 125 frames apart.
    """
    if length.num_frames <= LEAST_FRAMES:
        return False
    if clip.sampling == "segment":
        return length.num_frames > MOST_FRAMES_APART * clip.num_frames * num_clips
    if clip.frames_per_second is not None:
        spanned = (clip.num_frames - 1) / clip.frames_per_second
        return length.seconds is not None and num_clips * spanned < LEAST_SHARE * length.seconds
    return num_clips * ((clip.num_frames - 1) * clip.stride + 1) < LEAST_SHARE * length.num_frames


def long_videos_notice(
    lengths: Mapping[Sample, Length], clip: ClipConfig, num_clips: int, remedy: str = REMEDY
) -> str | None:
    """One line about the long videos among ``lengths``, which names the longest; None if no video is long.

    Opens the longest file again if its seconds are not in ``lengths``.
    """
    long = {sample: length for sample, length in lengths.items() if is_long(length, clip, num_clips)}
    if not long:
        return None
    longest = max(long, key=lambda sample: long[sample].num_frames)
    seconds, number = _seconds(longest, long[longest]), long[longest].num_frames
    if clip.sampling == "segment":
        num_seen = clip.num_frames * num_clips
        seen = f"the {num_seen} frames that are looked at are {seconds / num_seen:.0f} s apart"
    else:
        if clip.frames_per_second is not None:
            spanned = (clip.num_frames - 1) / clip.frames_per_second
        else:
            spanned = ((clip.num_frames - 1) * clip.stride + 1) * seconds / number
        seen = f"the views span {num_clips * spanned:.0f} s of it"
    count = f"{len(long)} of {len(lengths)} videos {'is' if len(long) == 1 else 'are'} long"
    return f"{count}, such as {longest.name} ({seconds:.0f} s): each gets one label, and {seen}; {remedy}"


def _seconds(sample: Sample, length: Length) -> float:
    if length.seconds is not None:
        return length.seconds
    try:
        index = frame_index(sample.path)
        first, count = find_part(sample.path, index, sample.start_seconds, sample.end_seconds)
    except VideoError:  # the file was removed or changed since it was read
        return length.num_frames / 25
    times = index.times_seconds[first : first + count]
    return float(times[-1] - times[0])
