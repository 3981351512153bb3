"""Decides whether files with the name of a whole video contain all of it, or only the annotated part."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import av

from evl.data.manifests.listing import is_video_name
from evl.errors import VideoError
from evl.video.decode.container import open_video

log = logging.getLogger("evl")

_NUM_OPENED = 16
_SLACK_SECONDS = 2.0  # parts are cut at key frames, so a part may be longer than its times


def are_trimmed(length_seconds: Mapping[str, float]) -> bool:
    """Returns whether most of the files last no longer than the part that is wanted of them.

    ``length_seconds``: path → length of the part. Only a few files are opened, and only for the duration in their
    headers. If no header has a duration, the files count as whole videos.
    """
    files = sorted(path for path in length_seconds if is_video_name(path))
    opened = files[:: max(1, len(files) // _NUM_OPENED)][:_NUM_OPENED]
    durations = {path: duration for path in opened if (duration := _container_seconds(path)) is not None}
    short = sum(duration <= length_seconds[path] + _SLACK_SECONDS for path, duration in durations.items())
    trimmed = short > len(durations) / 2
    log.info(
        "files named by a video's id alone: %d of %d opened files last no longer than their part, so all of them %s",
        short, len(durations), "count as trimmed" if trimmed else "count as untrimmed, and are cut by the listed times",
    )  # fmt: skip
    return trimmed


def _container_seconds(path: str) -> float | None:
    """Returns the duration in a file's header; None if there is none, or if the file cannot be opened."""
    try:
        with open_video(path, one_thread=True) as (container, _):
            return container.duration / av.time_base if container.duration and container.duration > 0 else None
    except VideoError:
        return None
