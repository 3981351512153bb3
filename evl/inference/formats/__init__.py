"""Timelines in the formats of other tools: players' captions, tools for labeling, an evaluator.

A format is a file here and a line of FORMATS. ``evl.data.layouts`` reads back what tools for labeling export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from evl.errors import ConfigError, nearest
from evl.inference.formats.activitynet import write_activitynet
from evl.inference.formats.boris import write_boris
from evl.inference.formats.captions import write_srt, write_webvtt
from evl.inference.formats.common import LabeledVideo, labeled_videos
from evl.inference.formats.elan import write_elan
from evl.inference.formats.labelstudio import write_labelstudio
from evl.inference.timeline import Timeline

FORMATS: dict[str, Callable[[Path, Sequence[LabeledVideo]], None]] = {
    "webvtt": write_webvtt, "srt": write_srt, "activitynet": write_activitynet, "labelstudio": write_labelstudio,
    "boris": write_boris, "elan": write_elan,
}  # fmt: skip


def checked_formats(formats: str | Iterable[str]) -> tuple[str, ...]:
    """Returns the names in a list, or between the commas of a text. Raises ConfigError for an unknown one."""
    texts = [formats] if isinstance(formats, str) else formats
    names = [name.strip().lower() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"the format {name!r} is unknown{nearest(name, FORMATS)}")
    return tuple(dict.fromkeys(names))


def write_formats(folder: Path, timelines: Iterable[Timeline], formats: str | Iterable[str]) -> None:
    """Writes the segments of timelines into ``folder``: NAME.vtt, NAME.srt and NAME.eaf for each video, named after
    it; activitynet.json, labelstudio.json and .xml, and timeline.boris for all. Raises ConfigError, SaveError.

    The timelines of parts of one file become one video.
    """
    names, videos = checked_formats(formats), labeled_videos(timelines)
    for name in names:
        FORMATS[name](folder, videos)
