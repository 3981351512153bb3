"""Label Studio's tasks (JSON, JSON_MIN): segments of ``TimelineLabels``, or of ``Labels`` on the sound of a video.

``TimelineLabels`` count frames from 1, and both ends belong to a range. At ``fps`` frames per second, a range shows the
time from (start − 1) / fps to end / fps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout
from evl.data.layouts.segments.base import SegmentReader, Segments, expect, load_json, start_of, text_of
from evl.data.layouts.segments.places import path_in
from evl.data.manifests.listing import is_video_name
from evl.errors import DataError

LOOKED_FOR = "a .json that Label Studio exported (JSON or JSON_MIN), with labels of TimelineLabels"
NUM_SPLITS = 1
SUFFIXES = (".json",)
FPS, PATH, VIDEO = "fps", "path", "video"  # fields of a task's data
_DEFAULT_FPS = 24  # of the tag Video
_RESULT = re.compile(r'"(annotations|predictions|completions)"\s*:\s*\[')


def frame_range(start_seconds: float, end_seconds: float, fps: float) -> tuple[int, int]:
    """Returns (start, end) of the range of frames nearest to a stretch of time: at least one frame."""
    start = round(start_seconds * fps) + 1
    return start, max(start, round(end_seconds * fps))


def range_seconds(start: float, end: float, fps: float) -> tuple[float, float]:
    """Returns (start, end) of a range of frames in seconds. A range from frame 0 is read as one from frame 1."""
    return max(start - 1, 0) / fps, end / fps


def find(files: list[Path]) -> list[Path]:
    """Returns all files that look like Label Studio's."""
    return [file for file in files if file.suffix.lower() in SUFFIXES and _is_ours(start_of(file))]


def _is_ours(start: str) -> bool:
    if '"timelinelabels"' in start:
        return True
    return _RESULT.search(start) is not None and '"data"' in start and '"database"' not in start


def read(found: FoundLayout, split_number: int) -> Annotation | Segments:
    """Reads the annotations of each task; if no task has any, the predictions.

    Of several annotations of a task, it reads the one marked as ground truth, else the newest. Skipped annotations are
    left out.
    """
    reader = SegmentReader(found.files[0] if len(found.files) == 1 else found.folder)
    tasks = [task for file in found.files for task in _tasks(file)]
    are_annotated = any(_annotations(where, task) for where, task in tasks)
    for where, task in tasks:
        data = expect(task.get("data", task), dict, where, "'data'")
        if "data" not in task:
            regions = list(_minimal_regions(data))
        else:
            regions = _regions(reader, where, task, are_annotated)
        if regions:
            video = _video(where, data)
            for number, region in enumerate(regions, 1):
                _read_region(reader, f"{where}, region {number}", region, video, data)
    return reader.finish()


def _tasks(file: Path) -> list[tuple[str, dict]]:
    """Returns (place, task) of each task."""
    content = load_json(file)
    found = []
    for number, task in enumerate(content if isinstance(content, list) else [content], 1):
        name = task.get("id", number) if isinstance(task, dict) else number
        where = f"{file}, task {name!r:.20}"
        found.append((where, expect(task, dict, where, "it")))
    return found


def _annotations(where: str, task: dict) -> list[dict]:
    """Returns the annotations of a task that were not skipped."""
    found = expect(task.get("annotations") or task.get("completions") or [], list, where, "'annotations'")
    for one in found:
        expect(one, dict, where, "an annotation")
    return [one for one in found if not one.get("was_cancelled")]


def _regions(reader: SegmentReader, where: str, task: dict, are_annotated: bool) -> list:
    annotations = _annotations(where, task)
    if are_annotated and not annotations:
        reader.leave_out("tasks without an annotation")
        return []
    if not are_annotated:
        annotations = expect(task.get("predictions") or [], list, where, "'predictions'")
        annotations = [expect(one, dict, where, "a prediction") for one in annotations]
        reader.notice("no task has an annotation, so the predictions are read, which nobody has corrected")
    if not annotations:
        return []
    chosen = max(annotations, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at", ""))))
    if len(annotations) > 1:
        reader.leave_out("further annotations of tasks that have several", len(annotations) - 1)
    regions = expect(chosen.get("result") or [], list, where, "'result'")
    if not regions:
        reader.leave_out("tasks without a segment")
    return regions


def _minimal_regions(data: dict) -> Iterator[dict]:
    """The regions of JSON_MIN, where a task is one object with a list for each tag."""
    for values in data.values():
        if isinstance(values, list):
            yield from ({"value": value} for value in values if isinstance(value, dict))


def _read_region(reader: SegmentReader, where: str, region: object, video: str, data: dict) -> None:
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(value, dict):
        reader.reject(where, f"it is {region!r:.60}, expected an object with 'value'")
        return
    if "ranges" in value or "timelinelabels" in value:
        labels, times = value.get("timelinelabels"), _frame_times(where, value.get("ranges"), data)
    elif "labels" in value and "start" in value and "end" in value:  # of the tag Audio, in seconds
        labels, times = value["labels"], [(value["start"], value["end"])]
    else:
        reader.leave_out("regions that are no labels of a stretch of time")
        return
    if not isinstance(labels, list) or not labels:
        reader.reject(where, f"its labels are {labels!r:.60}, expected a list of names")
        return
    for start, end in times:
        for label in labels:
            reader.add(where, video, label, start, end)


def _frame_times(where: str, ranges: object, data: dict) -> list[tuple[object, object]]:
    """Returns (start, end) in seconds of each range; what is no number stays as it is, and is refused later."""
    rate = _rate(where, data)
    times = []
    for one in expect(ranges, list, where, "'ranges'"):
        ends = [expect(one, dict, where, "a range").get(name) for name in ("start", "end")]
        if all(isinstance(end, int | float) and not isinstance(end, bool) and abs(end) < 1e15 for end in ends):
            times.append(range_seconds(*ends, rate) if ends[0] >= 0 else tuple(ends))
        else:
            times.append(tuple(ends))
    return times


def _rate(where: str, data: dict) -> float:
    value = data.get(FPS)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e6:
        shown = f"is {value!r:.40}" if FPS in data else "is missing"
        raise DataError(
            f"{where}: {FPS!r} {shown}. Label Studio counts frames, at the frameRate of its tag Video "
            f"({_DEFAULT_FPS} if it has none); add that number to the data of each task, as {FPS!r}"
        )
    return float(value)


def _video(where: str, data: dict) -> str:
    """Returns the path or address of a task's video: the field ``path``, or ``video``, or the first that names one."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    for name in (PATH, VIDEO):
        if name in texts:
            return text_of(texts[name], where, repr(name))
    for value in texts.values():
        if is_video_name(path_in(value)):
            return text_of(value, where, "the video")
    raise DataError(f"{where}: its data name no video: {', '.join(map(repr, list(data)[:6])) or 'nothing'}")
