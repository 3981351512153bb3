"""ActivityNet's results: the JSON that its evaluator of detections takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from evl.inference.formats.common import LabeledVideo
from evl.runtime.files import write_json

VERSION = "VERSION 1.3"
_PUBLISHED = re.compile(r"v_([\w-]{11})")  # the file of a video with this id of YouTube


def write_activitynet(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes activitynet.json. ``paths`` is an addition of evl, which other readers pass over."""
    names = {video.path: _id(video.name) for video in videos}
    content = {
        "version": VERSION,
        "results": {
            names[video.path]: [
                {
                    "label": one.label,
                    "score": round(one.score, 6),
                    "segment": [round(one.start_seconds, 6), round(one.end_seconds, 6)],
                }
                for one in video.segments
            ]
            for video in videos
        },
        "external_data": {"used": True, "details": "a frozen image encoder, pretrained on other data"},
        "paths": {names[video.path]: video.path for video in videos},
    }
    write_json(folder / "activitynet.json", content)


def _id(name: str) -> str:
    published = _PUBLISHED.fullmatch(name)
    return published[1] if published else name
