"""What is worth saying of a video that is good: which of several things in it is read."""

from __future__ import annotations

import os
from pathlib import Path

from evl.types import Notice
from evl.video.container import open_video, video_streams
from evl.video.frame_folder import frames_in
from evl.video.frame_series import gaps
from evl.video.index import FrameIndex, decode_everything

STREAMS = (
    "several video streams in a file (to read stream N instead, keep only it: ffmpeg -i FILE -map 0:N -c copy NEW)"
)
CLOCK = "clocks that jump (parts joined byte by byte; seconds are counted on behind the jump)"
LEFT_OUT = "pictures beside the frames of a folder (if it is the wrong ones that are read, move the others elsewhere)"
GAPS = "numbers left out in folders of frames (frames on both sides count as neighbors; see whether some are lost)"


def notices(path: str | Path, index: FrameIndex) -> tuple[Notice, ...]:
    """Of a file or a folder of frames that can be read, with its index. Raises VideoError."""
    path = str(path)
    if os.path.isdir(path):
        return _of_folder(path)
    return _of_streams(path) + (_of_clock(path) if index.is_counted else ())


def _of_clock(path: str) -> tuple[Notice, ...]:
    jumps = decode_everything(path).clock_jumps  # which the index was made of
    more = f" and {len(jumps) - 1} more" if len(jumps) > 1 else ""
    return (Notice(CLOCK, f"before frame {jumps[0]}{more}"),) if jumps else ()


def _of_folder(path: str) -> tuple[Notice, ...]:
    found, said = frames_in(path), []
    if found is None:
        return ()
    if found.left_out:
        said.append(Notice(LEFT_OUT, f"{found.series} is read, not {', '.join(map(str, found.left_out))}"))
    if missing := gaps(found.series):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        said.append(Notice(GAPS, f"before {missing[0]}{more}"))
    return tuple(said)


def _of_streams(path: str) -> tuple[Notice, ...]:
    with open_video(path) as (container, stream):
        others = [other.index for other in video_streams(container) if other.index != stream.index]
        if not others:
            return ()
        size = f"{stream.codec_context.width}×{stream.codec_context.height}"
        return (Notice(STREAMS, f"stream {stream.index}, {size}, is read, not {', '.join(map(str, others))}"),)
