"""What the formats of other tools share: the segments by video, whole milliseconds, and text that a format can hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evl.inference.segments import Segment
from evl.inference.timeline import Timeline
from evl.inference.timeline_files import names_of

USUAL_FPS = 25.0  # where a timeline does not know its video's rate
# what XML 1.0 cannot hold, not even as a code
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAKS = re.compile("[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True)
class LabeledVideo:
    """The segments of one video, sorted by their start.

    ``name``: that of the file without ending; with a number where several would be the same. ``path`` is absolute.
    ``end_seconds``: how far the timeline reaches. ``frames_per_second``: the mean rate of the file.
    """

    name: str
    path: str
    class_names: tuple[str, ...]
    segments: tuple[Segment, ...]
    end_seconds: float
    frames_per_second: float
    protocol: str


def labeled_videos(timelines: Iterable[Timeline]) -> tuple[LabeledVideo, ...]:
    """Returns the videos of timelines; the timelines of parts of one file become one video."""
    by_path: dict[str, list[Timeline]] = {}
    for line in timelines:
        by_path.setdefault(os.path.abspath(line.path), []).append(line)
    videos = []
    names = names_of([lines[0] for lines in by_path.values()])
    for name, (path, lines) in zip(names, by_path.items(), strict=True):
        videos.append(
            LabeledVideo(
                name,
                path,
                tuple(dict.fromkeys(label for line in lines for label in line.class_names)),
                tuple(sorted((one for line in lines for one in line.segments), key=lambda one: one.start_seconds)),
                max(line.end_seconds for line in lines),
                next((line.frames_per_second for line in lines if line.frames_per_second), USUAL_FPS),
                lines[0].protocol,
            )
        )
    return tuple(videos)


def milliseconds(segment: Segment) -> tuple[int, int]:
    """(start, end) of a segment in whole milliseconds, at least one long."""
    start = round(segment.start_seconds * 1000)
    return start, max(start + 1, round(segment.end_seconds * 1000))


def lanes(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments of one class, sorted by their start, in as few lists as have no two that overlap."""
    found: list[list[Segment]] = []
    for segment in segments:
        free = next((lane for lane in found if milliseconds(lane[-1])[1] <= milliseconds(segment)[0]), None)
        if free is None:
            found.append([segment])
        else:
            free.append(segment)
    return found


def by_class(video: LabeledVideo) -> dict[str, list[list[Segment]]]:
    """Returns class name → the lanes of its segments; [] for a class without any."""
    names = dict.fromkeys((*video.class_names, *(one.label for one in video.segments)))
    return {name: lanes([one for one in video.segments if one.label == name]) for name in names}


def xml_text(text: str) -> str:
    """``text`` with codes such as ``\\x1b`` for the characters that XML cannot hold."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def caption_text(text: str) -> str:
    """``text`` on one line: a blank line would end a caption, and players leave out an empty one."""
    return xml_text(_BREAKS.sub(" ", text)).strip() or "(no name)"
