"""Long videos → timelines: what a model sees when."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evl.api.models import open_model, refuse_unknown
from evl.api.timeline_folder import Timelines, run_names, written
from evl.data.manifests.manifest import AnyPath, Videos, is_one_video, videos_at
from evl.errors import ConfigError, VideoError
from evl.inference.formats import checked_formats, write_formats
from evl.inference.overlay import write_overlay
from evl.inference.segments import Threshold
from evl.inference.timeline import Timeline, plan_for, rules_of, shared_encoder, timelines_of
from evl.inference.timeline_files import read_timeline
from evl.runtime.files import expand_home
from evl.runtime.progress import Progress, Report, showing
from evl.saving import VideoClassifier
from evl.types import Sample
from evl.video.windows import WindowPlan

log = logging.getLogger("evl")


def timeline(model: VideoClassifier | AnyPath, path: AnyPath | Sample, **options: Any) -> Timeline:
    """What a model sees when in one long video: ``.times``, ``.scores``, ``.frames`` and ``.segments``.

        line = evl.timeline("runs/mine", "match.mp4", on=0.6, min_seconds=1)
        for one in line.segments: print(one.label, one.start_seconds, one.end_seconds)

    ``path``: a video, or a sample, which may be a part of one. ``options``: those of ``evl.timelines``, but for
    ``progress``, which is off by default. Raises VideoError if the video cannot be used.
    """
    if isinstance(model, list | tuple):
        raise ConfigError("expected one model; evl.timelines takes several")
    if not is_one_video(path):
        raise ConfigError(f"{path!r:.60}: expected one video; evl.timelines takes several")
    found = timelines(model, path, **{"progress": False} | options)
    for name, reason in found.failed.items():
        raise VideoError(name, reason)
    return found.timelines[0]


def timelines(
    model: VideoClassifier | AnyPath | Sequence[VideoClassifier | AnyPath] | None,
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
    page: bool = False,
    overlay: AnyPath | None = None,
    device: str | None = None,
    progress: bool | Report = True,
    **sizes: Any,
) -> Timelines:
    """The timelines of several videos; those that cannot be used are in ``.failed``.

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads; or a list of
            several with the same encoder, preprocessing and sampling, for which each frame is encoded once; None with
            ``scores``. Each video then has a timeline of each model, whose ``run`` is its folder's name.
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
            It appears whole, at the end. A call that was killed goes on where it was when the same call is made again.
        formats: also write the segments into ``out`` for other tools: names of ``evl.inference.formats.FORMATS``.
        page: also write ``timeline.html`` for each timeline: the video, a lane for each class, curves of scores.
        overlay: a new MP4 of the video with bars of labels and scores, and its sound; for one timeline.
        progress: as for ``evl.train``.
        sizes: ``num_frames``, ``stride``, ``frames_per_second`` and ``image_size``, as for ``evl.load``.

    Raises ConfigError for arguments that do not go together, RunError if ``out`` is used or held.
    """
    refuse_unknown(sizes)
    if (checked_formats(formats) or page) and out is None:
        raise ConfigError("with `formats` or `page`, give `out`: the folder to write them into")
    given = dict(on=on, off=off, smooth=smooth, merge_seconds=merge_seconds, min_seconds=min_seconds)
    given = {name: value for name, value in given.items() if value is not None}
    if scores:
        windows = (every_seconds, every_frames, window_seconds, num_crops, batch_size, *sizes.values())
        if model is not None or paths or any(value is not None for value in windows):
            raise ConfigError("`scores` take the place of a model, videos and their windows: leave out the others")
        files = [scores] if isinstance(scores, str | os.PathLike) else scores
        _refuse_overlay(overlay, len(files))
        with showing(progress) as report:
            result = written(
                lambda work: Timelines(tuple(read_timeline(path, given) for path in files), {}), out, formats, page
            )
            _write_overlay(result, overlay, report)
        return result
    if model is None:
        raise ConfigError("give a model and videos, or the `scores` of earlier timelines")
    samples = videos_at(paths)
    models = [open_model(one, device, sizes) for one in (model if isinstance(model, list | tuple) else [model])]
    _refuse_overlay(overlay, len(samples) * len(models))
    steps = dict(every_seconds=every_seconds, every_frames=every_frames, window_seconds=window_seconds)
    plan = _shared_plan(models, steps)
    how = dict(encoder=shared_encoder(models, num_crops), batch_size=batch_size)
    rules = [rules_of(one, given) for one in models]
    for one in models:
        if one.card.segment_rules is not None and on is None:
            log.info("thresholds of segments are those of the model, chosen on %s", one.card.rules_chosen_on)
    names = run_names(models) if len(models) > 1 else [""]

    def found(report: Report, work: Path | None) -> Timelines:
        lines, failed = [], {}
        for place, sample in enumerate(samples):
            count = _counting(report, _phase(sample, place, len(samples)))
            try:
                own = timelines_of(models, sample, plan, rules, **how, progress=count, work=work)
                lines += [replace(line, run=name) for line, name in zip(own, names, strict=True)]
            except VideoError as error:
                failed[sample.name] = error.reason
        return Timelines(tuple(lines), failed)

    with showing(progress) as report:
        result = written(lambda work: found(report, work), out, formats, page)
        _write_overlay(result, overlay, report)
    return result


def _shared_plan(models: Sequence[VideoClassifier], steps: dict[str, Any]) -> WindowPlan:
    """The windows of all models. Raises ConfigError for models that cannot share the frames."""
    if not models:
        raise ConfigError("expected at least one model")
    plan, *others = (plan_for(one, **steps) for one in models)
    if any(other != plan for other in others):
        raise ConfigError("the models sample other frames (num_frames, stride or rate), so run each alone")
    return plan


def _write_overlay(result: Timelines, path: AnyPath | None, report: Report) -> None:
    """Raises VideoError if the video cannot be read again or encoded."""
    if path is not None and result.timelines:
        write_overlay(expand_home(Path(path)), result.timelines[0], _counting(report, "overlay", "frames"))


def _refuse_overlay(path: AnyPath | None, num_timelines: int) -> None:
    """Raises ConfigError for more timelines than one, and for a file that exists, which may be the video itself."""
    if path is None:
        return
    if num_timelines > 1:
        raise ConfigError("`overlay` is one file: give one model and one video")
    if expand_home(Path(path)).exists():
        raise ConfigError(f"{path} exists already; choose another name for `overlay`")


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


def _counting(report: Report, phase: str, unit: str = "windows") -> Callable[[int, int], None]:
    done = 0

    def count(more: int, total: int) -> None:
        nonlocal done
        done += more
        report(Progress(phase, done, total, unit=unit))

    return count
