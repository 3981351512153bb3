"""Whether files named after a whole video hold all of it, or only the part that was annotated."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from evl.data.manifests.listing import is_video_name

log = logging.getLogger("evl")

_PROBES = 16  # files that are opened to tell
_SLACK_SECONDS = 2.0  # a part is cut at key frames
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf"  # only what such files are in: no playlists


def are_trimmed(length_seconds: Mapping[str, float]) -> bool:
    """True if most of some of these files last no longer than the part wanted of them; ``length_seconds``: path →
    length of the part. Headers are believed. Where none tells, they are taken for whole videos."""
    files = sorted(path for path in length_seconds if is_video_name(path))
    some = files[:: max(1, len(files) // _PROBES)][:_PROBES]
    durations = {path: duration for path in some if (duration := container_seconds(path)) is not None}
    short = sum(duration <= length_seconds[path] + _SLACK_SECONDS for path, duration in durations.items())
    trimmed = short > len(durations) / 2
    log.info(
        "files named by a video's id alone: %d of %d opened last no longer than their part, so they are taken as %s",
        short, len(durations), "trimmed already" if trimmed else "untrimmed, and cut by the listed times",
    )  # fmt: skip
    return trimmed


def container_seconds(path: str) -> float | None:
    """The duration a file's header claims; None for a file that cannot be opened or does not say."""
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        if not os.path.isfile(path):
            return None
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            return container.duration / av.time_base if container.duration and container.duration > 0 else None
    except (av.error.FFmpegError, OSError, ValueError):
        return None
