"""Long videos → timelines: what a model sees when."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evl.api.models import open_model, refuse_unknown
from evl.data.manifests.manifest import AnyPath, Videos, is_one_video, videos_at
from evl.errors import ConfigError, VideoError
from evl.inference.formats import checked_formats, write_formats
from evl.inference.segments import Threshold
from evl.inference.timeline import Timeline, plan_for, rules_of, timeline_of
from evl.inference.timeline_files import SCORES, SEGMENTS, names_of, read_timeline, write_scores, write_segments
from evl.runtime.files import expand_home
from evl.runtime.out_folder import build_folder, hold_lock, lock_beside
from evl.runtime.progress import Progress, Report, showing
from evl.saving import VideoClassifier
from evl.types import Sample

log = logging.getLogger("evl")


@dataclass(frozen=True)
class Timelines:
    """``timelines`` of the videos that could be read, in order. ``failed``: the name of each other video → reason."""

    timelines: tuple[Timeline, ...]
    failed: dict[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether all videos were read, and no stretch of any was damaged."""
        return not self.failed and not any(line.damaged for line in self.timelines)


def timeline(model: VideoClassifier | AnyPath, path: AnyPath | Sample, **options: Any) -> Timeline:
    """What a model sees when in one long video: ``.times``, ``.scores``, ``.frames`` and ``.segments``.

        line = evl.timeline("runs/mine", "match.mp4", on=0.6, min_seconds=1)
        for one in line.segments: print(one.label, one.start_seconds, one.end_seconds)

    ``path``: a video, or a sample, which may be a part of one. ``options``: those of ``evl.timelines``, but for
    ``progress``, which is off by default. Raises VideoError if the video cannot be used.
    """
    if not is_one_video(path):
        raise ConfigError(f"{path!r:.60}: expected one video; evl.timelines takes several")
    found = timelines(model, path, **{"progress": False} | options)
    for name, reason in found.failed.items():
        raise VideoError(name, reason)
    return found.timelines[0]


def timelines(
    model: VideoClassifier | AnyPath | None,
    paths: Videos = (),
    *,
    every_seconds: float | None = None,
    every_frames: int | None = None,
    window_seconds: float | None = None,
    on: Threshold | None = None,
    off: Threshold | None = None,
    smooth: int | None = None,
    merge_seconds: float | None = None,
    min_seconds: float | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    scores: Sequence[AnyPath] = (),
    out: AnyPath | None = None,
    formats: str | Sequence[str] = (),
    device: str | None = None,
    progress: bool | Report = True,
    **sizes: Any,
) -> Timelines:
    """The timelines of several videos; those that cannot be used are in ``.failed``.

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads; None with
            ``scores``.
        paths: files, folders and manifests (a row may be a part of a file), and samples.
        every_seconds, every_frames: the step from window to window; None: a window starts at each sampled frame.
        window_seconds: for models that take one frame from each segment: the length of a window; None: 4.
        on, off, smooth, merge_seconds, min_seconds: how segments are found, see
            ``evl.inference.segments.SegmentRules``. None: as the model says, if thresholds were chosen for it
            (``evl.evaluate_timelines``), else the usual ones.
        num_crops: crops of each frame; None: the model's own.
        batch_size: windows at a time; None: as many as views in a batch of evaluation.
        scores: in place of videos, files ``scores.parquet`` of earlier timelines: nothing is computed, only the
            segments are found anew, by the rules of then with what is given now.
        out: a new folder for ``segments.csv`` and ``scores.parquet``. Of several videos, each has a folder of its own,
            and a ``segments.csv`` above has the segments of all. None: nothing is written.
        formats: also write the segments into ``out`` for other tools: names of ``evl.inference.formats.FORMATS``.
        progress: as for ``evl.train``.
        sizes: ``num_frames``, ``stride``, ``frames_per_second`` and ``image_size``, as for ``evl.load``.

    Raises ConfigError for arguments that do not go together, RunError if ``out`` is used or held.
    """
    refuse_unknown(sizes)
    if checked_formats(formats) and out is None:
        raise ConfigError("with `formats`, give `out`: the folder to write them into")
    given = dict(on=on, off=off, smooth=smooth, merge_seconds=merge_seconds, min_seconds=min_seconds)
    given = {name: value for name, value in given.items() if value is not None}
    if scores:
        windows = (every_seconds, every_frames, window_seconds, num_crops, batch_size, *sizes.values())
        if model is not None or paths or any(value is not None for value in windows):
            raise ConfigError("`scores` take the place of a model, videos and their windows: leave out the others")
        files = [scores] if isinstance(scores, str | os.PathLike) else scores
        return _written(lambda: Timelines(tuple(read_timeline(path, given) for path in files), {}), out, formats)
    if model is None:
        raise ConfigError("give a model and videos, or the `scores` of earlier timelines")
    samples = videos_at(paths)
    model = open_model(model, device, sizes)
    plan = plan_for(model, every_seconds=every_seconds, every_frames=every_frames, window_seconds=window_seconds)
    how = dict(num_crops=num_crops, batch_size=batch_size)
    rules = rules_of(model, given)
    if model.card.segment_rules is not None and on is None:
        log.info("thresholds of segments are those of the model, chosen on %s", model.card.rules_chosen_on)

    def found(report: Report) -> Timelines:
        lines, failed = [], {}
        for place, sample in enumerate(samples):
            count = _counting(report, _phase(sample, place, len(samples)))
            try:
                lines.append(timeline_of(model, sample, plan, rules, **how, progress=count))
            except VideoError as error:
                failed[sample.name] = error.reason
        return Timelines(tuple(lines), failed)

    with showing(progress) as report:
        return _written(lambda: found(report), out, formats)


def _written(find: Callable[[], Timelines], out: AnyPath | None, formats: str | Sequence[str]) -> Timelines:
    """What ``find`` returns, written to the folder ``out``, which is held meanwhile and appears whole."""
    if out is None:
        return find()
    out = expand_home(Path(out))
    with hold_lock(lock_beside(out), out), build_folder(out) as folder:
        result = find()
        if len(result.timelines) + len(result.failed) > 1:
            write_segments(folder / SEGMENTS, result.timelines)
            folders = [folder / name for name in names_of(result.timelines)]
        else:
            folders = [folder] * len(result.timelines)
        for own, line in zip(folders, result.timelines, strict=True):
            own.mkdir(exist_ok=True)
            write_segments(own / SEGMENTS, [line])
            write_scores(own / SCORES, line)
        write_formats(folder, result.timelines, formats)
    return result


def write_timelines(
    lines: Timeline | Timelines | Iterable[Timeline], out: AnyPath, formats: str | Sequence[str]
) -> None:
    """Writes the segments of timelines for other tools into the folder ``out``; files of an earlier call are replaced.

        line = evl.timeline("runs/mine", "match.mp4")
        evl.write_timelines(line, "match", "webvtt, labelstudio")

    ``formats``: some of ``webvtt``, ``srt``, ``activitynet``, ``labelstudio``, ``boris``, ``elan``. Raises ConfigError
    for any other, SaveError if the system refuses.
    """
    if isinstance(lines, Timeline | Timelines):
        lines = [lines] if isinstance(lines, Timeline) else lines.timelines
    write_formats(expand_home(Path(out)), lines, formats)


def _phase(sample: Sample, place: int, count: int) -> str:
    name = os.path.basename(sample.path)
    return name if count == 1 else f"{name} ({place + 1} of {count})"


def _counting(report: Report, phase: str) -> Callable[[int, int], None]:
    done = 0

    def count(more: int, total: int) -> None:
        nonlocal done
        done += more
        report(Progress(phase, done, total, unit="windows"))

    return count
