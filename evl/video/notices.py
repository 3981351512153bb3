"""Notices about good videos that some users would expect to be read in another way, or that are very long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evl.config import ClipConfig
from evl.errors import VideoError
from evl.types import Notice, Sample
from evl.video.decode.container import decode, open_video, video_streams
from evl.video.decode.frame_folder import frames_in
from evl.video.decode.frame_series import gaps
from evl.video.decode.index import FrameIndex, frame_index, probe
from evl.video.decode.reader import find_part
from evl.video.decode.rgb import NAMES, is_hdr, pixel_shape, squared

FIELD_ORDERS = (2, 3, 4, 5)  # libav's numbers for interlaced video; 0: unknown, 1: progressive
MAY_BE_INTERLACED = frozenset("h264 hevc mpeg2video mpeg4 vc1 dvvideo".split())  # noqa: SIM905

STREAMS = (
    "several video streams in a file (to read stream N instead, keep only it: ffmpeg -i FILE -map 0:N -c copy NEW)"
)
CLOCK = "clocks that jump (parts joined byte by byte; after the jump, evl continues the time of the part before)"
LEFT_OUT = "more pictures in a folder than its frames (if evl reads the wrong ones, move the others elsewhere)"
PIXELS = "pixels that are not square (made square before training and judging, unless data.pixel_aspect=false)"
HDR = "HDR films (converted to SDR when they are read, by BT.2390's curve)"
INTERLACED = "interlaced films (moving edges look like combs; make them progressive: ffmpeg -i FILE -vf bwdif NEW)"
GAPS = "missing numbers in folders of frames (frames on both sides count as neighbors; check whether some are lost)"
LEAST_FRAMES = 750  # 30 s at 25 frames per second; a video of so many frames or fewer is never called long
LEAST_SHARE = 0.1  # of a video; if its dense views span less, it is long
MOST_FRAMES_APART = 125  # 5 s at 25 frames per second, between neighboring frames of segment sampling
REMEDY = "cut them by start_seconds and end_seconds in a manifest"


def notices(path: str | Path, index: FrameIndex) -> tuple[Notice, ...]:
    """All notices about a readable file or folder of frames, whose frame index is ``index``. Raises VideoError."""
    path = str(path)
    if os.path.isdir(path):
        return _of_folder(path)
    return _of_header(path)[0] + (_of_clock(path) if index.is_counted else ())


def header_notices(path: str | Path) -> tuple[tuple[Notice, ...], float | None]:
    """(the notices that a file's header gives, the frames per second in the header); ((), None) for a folder.

    Opens the file and decodes one frame at most. Headers can be wrong, so check them in other ways, too. Raises
    VideoError.
    """
    return ((), None) if os.path.isdir(path) else _of_header(str(path))


def _of_clock(path: str) -> tuple[Notice, ...]:
    jumps = probe(path).clock_jumps  # in memory already, because the index was made from it
    more = f" and {len(jumps) - 1} more" if len(jumps) > 1 else ""
    return (Notice(CLOCK, f"before frame {jumps[0]}{more}"),) if jumps else ()


def _of_folder(path: str) -> tuple[Notice, ...]:
    frames, result = frames_in(path), []
    if frames is None:
        return ()
    if frames.left_out:
        result.append(Notice(LEFT_OUT, f"{frames.series} is read, not {', '.join(map(str, frames.left_out))}"))
    if missing := gaps(frames.series):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        result.append(Notice(GAPS, f"before {missing[0]}{more}"))
    return tuple(result)


def _of_header(path: str) -> tuple[tuple[Notice, ...], float | None]:
    result = []
    with open_video(path, one_thread=True) as (container, stream):
        context = stream.codec_context
        size = f"{context.width}×{context.height}"
        if others := [other.index for other in video_streams(container) if other.index != stream.index]:
            result.append(Notice(STREAMS, f"stream {stream.index}, {size}, is read, not {', '.join(map(str, others))}"))
        claim = stream.sample_aspect_ratio
        if (shape := pixel_shape(stream)) is not None:
            shown = "×".join(map(str, squared(context.width, context.height, shape)))
            result.append(Notice(PIXELS, f"{shape.numerator}:{shape.denominator}, {size} is shown as {shown}"))
        elif claim and claim != 1:
            what = f"{claim.numerator}:{claim.denominator} is not plausible, {size} stays as it is"
            result.append(Notice(PIXELS, what))
        if is_hdr(context.color_trc):
            result.append(Notice(HDR, NAMES[context.color_trc]))
        if _is_interlaced(container, stream):
            result.append(Notice(INTERLACED, f"{context.name}, {size}"))
        rate = stream.average_rate
    return tuple(result), float(rate) if rate else None


def _is_interlaced(container, stream) -> bool:
    """Whether a video is interlaced, from its header; if the header does not say it, from the first frame."""
    if stream.codec_context.field_order or stream.codec_context.name not in MAY_BE_INTERLACED:
        return stream.codec_context.field_order in FIELD_ORDERS
    first = next(decode(container, stream), None)
    return first is not None and first.interlaced_frame


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
