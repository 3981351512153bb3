"""What is worth saying of a video that is good: which of several things in it is read."""

from __future__ import annotations

import os
from pathlib import Path

from evl.types import Notice
from evl.video.container import open_video, video_streams

STREAMS = (
    "several video streams in a file (to read stream N instead, keep only it: ffmpeg -i FILE -map 0:N -c copy NEW)"
)


def notices(path: str | Path) -> tuple[Notice, ...]:
    """Of a file or a folder of frames that can be read. Decodes nothing. Raises VideoError."""
    path = str(path)
    return () if os.path.isdir(path) else _of_streams(path)


def _of_streams(path: str) -> tuple[Notice, ...]:
    with open_video(path) as (container, stream):
        others = [other.index for other in video_streams(container) if other.index != stream.index]
        if not others:
            return ()
        size = f"{stream.codec_context.width}×{stream.codec_context.height}"
        return (Notice(STREAMS, f"stream {stream.index}, {size}, is read, not {', '.join(map(str, others))}"),)
