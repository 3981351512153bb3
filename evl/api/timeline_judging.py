"""A model against videos with labeled segments: what it finds when, and thresholds that are chosen for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evl.api.judging import choose_split, judged_samples, run_of, warn_if_trained_on
from evl.api.models import open_model
from evl.api.timeline_folder import Timelines
from evl.api.timelines import timelines
from evl.data.manifests import Manifest
from evl.data.manifests.manifest import AnyPath, read_manifest
from evl.errors import ConfigError, DataError, plural
from evl.evaluation.report import held_for_scores
from evl.evaluation.timelines.evaluate import TimelineEvaluation, evaluate_lines
from evl.evaluation.timelines.report import write_timeline_evaluation
from evl.evaluation.timelines.thresholds import choose_thresholds as chosen_thresholds
from evl.evaluation.timelines.truth import by_video, check_labels
from evl.inference.reading import device_of
from evl.inference.segments import Threshold
from evl.inference.timeline import Timeline, rules_of
from evl.inference.timeline_files import read_timeline
from evl.runtime.distributed import World, join_world
from evl.runtime.files import expand_home
from evl.runtime.progress import Report
from evl.saving import VideoClassifier, save_model
from evl.training.run_folder import RunFolder
from evl.types import Sample

log = logging.getLogger("evl")
Rows = Mapping[str, Sequence[Sample]]  # the labeled rows of each video, by its path


def evaluate_timelines(
    model: VideoClassifier | AnyPath | None,
    data: AnyPath | Manifest | None = None,
    *,
    split: str | None = None,
    root: AnyPath | None = None,
    choose_thresholds: bool = False,
    scores: Sequence[AnyPath] = (),
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
    out: AnyPath | None = None,
    device: str | None = None,
    progress: bool | Report = True,
    **sizes: Any,
) -> TimelineEvaluation:
    """Judges what a model finds when in long videos: ``.metrics``, ``.classes()``, ``.videos()``, ``.timelines``.

        evl.evaluate_timelines("runs/mine", "segments.csv").metrics.map_50

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``.
            None with ``scores``.
        data: a manifest with a row for each segment (``start_seconds``, ``end_seconds``). All segments of its files
            must be listed: what has no row counts as background, as do rows with the label ``background``. None: the
            run's own validation videos.
        split: the split of ``data``; None: test, else val, all, train.
        root: as for ``evl.read_manifest``.
        choose_thresholds: first choose each class's threshold on the split val of ``data`` (or the run's own), and keep
            them with the model: ``evl.timeline`` then uses them.
        scores: files ``scores.parquet`` of earlier timelines of these videos: nothing is computed.
        every_seconds, every_frames, window_seconds, num_crops, batch_size: the windows, as for ``evl.timelines``.
        on, off, smooth, merge_seconds, min_seconds: how segments are found, as for ``evl.timelines``.
        out: where scores, segments and pictures are written; None: nowhere.
        device: None: the model's own, for a run CUDA if there is one.
        progress: as for ``evl.train``.

    Under torchrun all processes share the videos and get the whole result. Raises DataError where labels are no classes
    of the model, no video could be read, or there are no validation videos to choose by; ConfigError for arguments that
    do not go together, RunError if ``out`` is held.
    """
    out = None if out is None else expand_home(Path(out))
    if model is None and not scores:
        raise ConfigError("give a model, or the `scores` of earlier timelines")
    if choose_thresholds and (model is None or any(value is not None for value in sizes.values())):
        raise ConfigError("`choose_thresholds` keeps thresholds with a model as it was trained: give its folder alone")
    run = None if model is None else run_of(model)
    with join_world(_device_for(model, device)) as world, ExitStack() as held:
        world.only_main(lambda: held.enter_context(held_for_scores(out)))
        model = None if model is None else open_model(model, str(world.device), sizes)
        given = dict(on=on, off=off, smooth=smooth, merge_seconds=merge_seconds, min_seconds=min_seconds)
        given = {name: value for name, value in given.items() if value is not None}
        windows = dict(every_seconds=every_seconds, every_frames=every_frames, window_seconds=window_seconds)
        windows |= dict(num_crops=num_crops, batch_size=batch_size)
        lines = _Lines(model, scores, given, windows, progress, world)
        videos = _Videos.of(run, data, root)
        samples, judged = videos.samples(split)
        if model is not None and data is not None and world.is_main:
            warn_if_trained_on(run.samples("train") if run is not None and run.exists else (), samples)
        note = ""
        if choose_thresholds:
            note = _choose(model, run, lines, videos, is_judged=judged == "val")
        rows = lines.rows_of(samples)
        found, failed = lines.of(rows)
        result = evaluate_lines(found, _in_order(rows, found), failed=failed, note=note)
        if out is not None and world.is_main:
            write_timeline_evaluation(out, result)
    return result


def _device_for(model: VideoClassifier | AnyPath | None, device: str | None) -> str | None:
    if model is None:
        return "cpu"  # scores are judged
    return device or (str(device_of(model)) if isinstance(model, VideoClassifier) else None)


@dataclass(frozen=True)
class _Videos:
    """The labeled segments of a manifest, or a run's own."""

    run: RunFolder | None
    manifest: Manifest | None
    root: AnyPath | None

    @classmethod
    def of(cls, run: RunFolder | None, data: AnyPath | Manifest | None, root: AnyPath | None) -> _Videos:
        if data is None or isinstance(data, Manifest):
            return cls(run, data, root)
        if not isinstance(data, str | os.PathLike):
            raise ConfigError(f"`data` {data!r:.60}: expected a manifest with a row for each segment")
        return cls(run, read_manifest(data, root=root), root)

    def samples(self, split: str | None) -> tuple[tuple[Sample, ...], str]:
        """(the rows of a split, its name)."""
        chosen = (split or "val") if self.manifest is None else choose_split(self.manifest, split)
        return judged_samples(self.run, self.manifest, chosen, root=self.root), chosen

    def validation(self) -> tuple[Sample, ...]:
        if self.manifest is not None and "val" not in self.manifest.splits:
            raise DataError(
                f"{self.manifest.source} has no split val, only {', '.join(self.manifest.splits)}: thresholds are "
                "chosen on validation videos, never on those of the test. Add a column split"
            )
        return self.samples("val")[0]


@dataclass(frozen=True)
class _Lines:
    """Where timelines come from: a model, or files of scores."""

    model: VideoClassifier | None
    scores: Sequence[AnyPath]
    rules: Mapping[str, Any]
    windows: Mapping[str, Any]
    progress: bool | Report
    world: World

    def rows_of(self, samples: Sequence[Sample]) -> Rows:
        if self.model is not None:
            check_labels(samples, self.model.class_names)  # before hours of work
        return by_video(samples)

    def of(self, rows: Rows) -> tuple[tuple[Timeline, ...], dict[str, str]]:
        """(the timelines of the videos that could be read, path → reason for the others)."""
        if not self.scores:
            shares = self.world.from_each(lambda: self._share(list(rows)[self.world.rank :: self.world.size]))
            found = {os.path.abspath(line.path): line for share in shares for line in share.timelines}
            failed = {path: reason for share in shares for path, reason in share.failed.items()}
            return tuple(found[path] for path in rows if path in found), failed
        if any(value is not None for value in self.windows.values()):
            raise ConfigError("`scores` have their windows already: leave out how these are made")
        files = [self.scores] if isinstance(self.scores, str | os.PathLike) else self.scores
        lines = {}
        for path in files:
            line = read_timeline(path, {} if self.model is None else asdict(rules_of(self.model)))
            lines[os.path.abspath(line.path)] = line.with_rules(line.rules.changed(self.rules))
        if self.model is not None:
            for line in lines.values():
                if line.class_names != tuple(self.model.class_names):
                    raise DataError(f"{line.path}: these scores are of other classes than the model's")
        missing = {path: "there are no scores of it" for path in rows if path not in lines}
        return tuple(lines[path] for path in rows if path in lines), missing

    def _share(self, paths: Sequence[str]) -> Timelines:
        """The timelines of some videos, which one process makes."""
        how = dict(self.rules) | dict(self.windows) | {"progress": self.progress}
        return timelines(self.model, list(map(Sample, paths)), **how) if paths else Timelines((), {})


def _in_order(rows: Rows, lines: Sequence[Timeline]) -> Rows:
    return {line.path: rows[os.path.abspath(line.path)] for line in lines}


def _choose(model: VideoClassifier, run: RunFolder | None, lines: _Lines, videos: _Videos, *, is_judged: bool) -> str:
    """Chooses thresholds, keeps them with the model, and uses them from now on; the end of the protocol."""
    rows = lines.rows_of(videos.validation())
    found, failed = lines.of(rows)
    for path, reason in failed.items():
        log.warning("%s: not used to choose thresholds: %s", path, reason)
    chosen = chosen_thresholds(found, _in_order(rows, found), rules_of(model, lines.rules))
    source = "its own" if videos.manifest is None else Path(videos.manifest.source).name
    words = f"{plural(len(found), 'validation video')} of {source}"
    model.card = replace(model.card, segment_rules=asdict(chosen.rules), rules_chosen_on=words)
    if chosen.unchosen:
        log.warning(
            "no validation video has a segment of %s: the threshold stays as it was", ", ".join(chosen.unchosen)
        )
    folder = model.folder if run is None else run.path
    if folder is not None and Path(folder).is_dir():
        lines.world.only_main(lambda: save_model(model, folder))
        log.info("thresholds of %d classes are kept in %s", len(chosen.scores), folder)
    for name in ("on", "off"):
        lines.rules.pop(name, None)
    return f", thresholds chosen on {'these videos: too good a score' if is_judged else words}"
