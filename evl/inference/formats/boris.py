"""BORIS: a project with an observation for each video, which BORIS opens, or imports into another project."""

from __future__ import annotations

import string
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from evl.inference.formats.common import LabeledVideo, by_class, milliseconds
from evl.runtime.files import write_json

FORMAT_VERSION = "7.0"
_KEYS = string.ascii_lowercase + string.digits


def write_boris(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes timeline.boris. Each class is a state event: its first event starts a segment, the next one stops it."""
    now = datetime.now().isoformat(timespec="seconds")
    names = dict.fromkeys(label for video in videos for label in by_class(video))
    num_lanes = max((len(found) for video in videos for found in by_class(video).values()), default=0)
    content = {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": "evl timeline",
        "project_description": "segments that evl found",
        "project_format_version": FORMAT_VERSION,
        "subjects_conf": {
            str(lane - 1): {
                "key": "",
                "name": _subject(lane),
                "description": "segments that overlap others of their class",
            }
            for lane in range(1, num_lanes)
        },
        "behaviors_conf": {str(place): _behavior(place, name) for place, name in enumerate(names)},
        "observations": {video.name: _observation(video, now) for video in videos},
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    write_json(folder / "timeline.boris", content)


def _subject(lane: int) -> str:
    """The subject of a lane: BORIS pairs the events of each subject. The first lane has none."""
    return f"lane {lane + 1}" if lane else ""


def _code(name: str) -> str:
    return name.replace("|", "¦")  # BORIS allows no | in codes


def _behavior(place: int, name: str) -> dict:
    return {
        "type": "State event",
        "key": _KEYS[place] if place < len(_KEYS) else "",
        "code": _code(name),
        "description": "",
        "color": "",
        "category": "",
        "modifiers": {},
        "excluded": "",
        "coding map": "",
    }


def _observation(video: LabeledVideo, now: str) -> dict:
    events = []
    for name, found in by_class(video).items():
        for lane, segments in enumerate(found):
            for one in segments:
                score = f"score {one.score:.3f}"
                times = [time / 1000 for time in milliseconds(one)]
                frames = [round(time * video.frames_per_second) for time in times]
                events += [
                    [time, _subject(lane), _code(name), "", comment, frame]
                    for time, frame, comment in zip(times, frames, (score, ""), strict=True)
                ]
    events.sort(key=lambda event: event[0])
    return {
        "file": {"1": [video.path]},
        "type": "MEDIA",
        "date": now,
        "description": video.protocol,
        "time offset": 0.0,
        "events": events,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "close_behaviors_between_videos": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "media_info": {
            "length": {video.path: round(video.end_seconds, 3)},
            "fps": {video.path: video.frames_per_second},
            "hasVideo": {video.path: True},
            "hasAudio": {video.path: False},
            "offset": {"1": 0.0},
        },
    }
