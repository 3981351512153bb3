"""Label Studio: tasks with predictions of ``TimelineLabels``, and the labeling configuration of their project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from evl.data.layouts.segments.labelstudio import FPS, PATH, VIDEO, frame_range
from evl.inference.formats.common import LabeledVideo, xml_text
from evl.runtime.files import write_file, write_json

_CONTROL = "labels"  # the name of the tag TimelineLabels
_COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#bab0ac")


def write_labelstudio(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes labelstudio.json (tasks to import) and labelstudio.xml (the configuration of the project)."""
    write_json(folder / "labelstudio.json", [_task(number, video) for number, video in enumerate(videos, 1)])
    names = dict.fromkeys(label for video in videos for label in video.class_names)
    write_file(folder / "labelstudio.xml", _configuration(list(names)))


def _task(number: int, video: LabeledVideo) -> dict:
    rate = video.frames_per_second
    regions = []
    for place, one in enumerate(video.segments, 1):
        start, end = frame_range(one.start_seconds, one.end_seconds, rate)
        regions.append(
            {
                "id": f"evl-{number}-{place}",
                "from_name": _CONTROL,
                "to_name": VIDEO,
                "type": "timelinelabels",
                "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [xml_text(one.label)]},
                "score": round(one.score, 6),
            }
        )
    mean = sum(one.score for one in video.segments) / max(1, len(video.segments))
    # an address of Label Studio's local files, whose root is /; ``path`` is for evl, which gets it back in an export
    address = f"/data/local-files/?d={quote(video.path.lstrip('/').encode('utf-8', 'surrogateescape'))}"
    return {
        "data": {VIDEO: address, FPS: rate, PATH: video.path},
        "predictions": [{"model_version": "evl", "score": round(mean, 6), "result": regions}],
    }


def _configuration(class_names: Sequence[str]) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Video", name=VIDEO, value=f"${VIDEO}", frameRate=f"${FPS}")
    labels = ElementTree.SubElement(view, "TimelineLabels", name=_CONTROL, toName=VIDEO)
    for place, name in enumerate(class_names):
        ElementTree.SubElement(labels, "Label", value=xml_text(name), background=_COLORS[place % len(_COLORS)])
    ElementTree.indent(view)
    return ElementTree.tostring(view, "unicode") + "\n"
