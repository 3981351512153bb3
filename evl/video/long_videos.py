"""Videos that are far longer than what a model looks at: they get one label all the same, so it is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from evl.config import ClipConfig
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode.index import frame_index
from evl.video.decode.reader import find_part

LEAST_FRAMES = 750  # 30 s at 25 frames per second: no shorter video is called long
LEAST_SHARE = 0.1  # of a video that its dense views span
MOST_FRAMES_APART = 125  # 5 s at 25 frames per second, between neighboring frames of segment sampling
REMEDY = "cut them by start_seconds and end_seconds in a manifest"


class Length(NamedTuple):
    """Of a video, or the part of one: ``seconds`` from its first frame to its last, where that was asked for."""

    num_frames: int
    seconds: float | None = None


def is_long(length: Length, clip: ClipConfig, num_clips: int) -> bool:
    """Whether a video has more than 750 frames, of which all ``num_clips`` views together span less than a tenth; for
    segment sampling, whether their frames are more than 125 apart."""
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
    """One line on the long ones of some videos, with the longest; None if there are none. Opens that one file again for
    its seconds, unless its length has them."""
    long = {sample: length for sample, length in lengths.items() if is_long(length, clip, num_clips)}
    if not long:
        return None
    longest = max(long, key=lambda sample: long[sample].num_frames)
    seconds, number = _seconds(longest, long[longest]), long[longest].num_frames
    if clip.sampling == "segment":
        apart = seconds * clip.num_frames**-1 / num_clips
        seen = f"the {clip.num_frames * num_clips} frames that are looked at are {apart:.0f} s apart"
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
    except VideoError:  # gone, or changed, since it was read
        return length.num_frames / 25
    times = index.times_seconds[first : first + count]
    return float(times[-1] - times[0])
