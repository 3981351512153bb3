"""Prepares a collection: writes a folder of copies that are fast to read, with the same paths, lists and times."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from evl.collections.copies import CopyPlan, Job, plan_copies
from evl.collections.copy_video import CopySettings, prepare_video
from evl.collections.loading_speed import LoadingSpeed, measure_loading
from evl.data.manifests.manifest import write_manifest
from evl.errors import DataError, RunError, VideoError
from evl.runtime.files import (
    append_json,
    expand_home,
    is_temporary,
    make_folder,
    read_json_lines,
    remove_abandoned,
    write_file,
    write_json,
    write_table,
)
from evl.runtime.out_folder import hold_lock
from evl.runtime.parallel import Crash, each_in_process, time_limit
from evl.runtime.progress import Progress, Report
from evl.video.decode.frame_folder import frame_files
from evl.video.decode.missing import is_missing, read_patiently

SETTINGS, JOURNAL, DAMAGED, LOCK = "prepare.json", "prepare.jsonl", "damaged.csv", ".prepare.evl.lock"


@dataclass(frozen=True)
class MadeCopy:
    """A line of the journal: a copy, with its path below the folder of copies, and the stamp of its source."""

    copy: str
    source_bytes: int
    source_mtime_ns: int
    num_bytes: int
    num_frames: int


@dataclass(frozen=True)
class PrepareReport:
    """What ``prepare`` did.

    ``num_made``: copies made now. ``num_kept``: copies from an earlier call. ``damaged``: (path, reason) of each video
    without a copy. ``bytes_before``, ``bytes_after``: of all sources with a copy, and of these copies. ``num_others``:
    lists that were copied too. ``left_out``: files that are neither videos nor lists. ``manifest``: the path of the new
    manifest. ``loading`` is None if no file could be measured.
    """

    num_files: int
    num_made: int
    num_kept: int
    damaged: tuple[tuple[str, str], ...]
    bytes_before: int
    bytes_after: int
    num_others: int
    left_out: tuple[str, ...] = field(default=())
    manifest: str | None = None
    loading: LoadingSpeed | None = None

    @property
    def num_away(self) -> int:
        """How many of ``damaged`` are only away: the next call asks for them again."""
        return sum(is_missing(reason) for _, reason in self.damaged)


def prepare(
    data: str | Path,
    out: str | Path,
    settings: CopySettings,
    *,
    num_workers: int | None = None,
    progress: Report = lambda report: None,
) -> PrepareReport:
    """Makes the missing copies of ``data`` (a folder or a manifest) in ``out``, and returns a report.

    ``num_workers``: None means one process per core. ``progress`` is called when a video is finished. If the call is
    interrupted or fails, finished copies stay, and the next call does not make them again.

    Raises DataError for a collection that ``plan_copies`` refuses, RunError if ``out`` contains other files, SaveError
    if the system refuses to write.
    """
    out = Path(os.path.abspath(expand_home(out)))
    plan = plan_copies(data, out, reserved=(SETTINGS, JOURNAL, DAMAGED))
    _start_folder(out, plan, settings)
    with hold_lock(out / LOCK, out):
        remove_abandoned(out)
        made = _finished(out, plan.jobs, _read_journal(out))
        num_kept, damaged = len(made), {}
        total = len(plan.jobs)
        progress(Progress("preparing", num_kept, total, "", num_kept, "files"))
        todo = [(job, out, settings) for job in plan.jobs if job.target not in made]
        results = each_in_process(_copy_in_process, todo, num_workers or os.cpu_count() or 1)
        try:
            for (job, _, _), result in results:
                if isinstance(result, MadeCopy):
                    made[job.target] = result
                    append_json(out / JOURNAL, asdict(result))
                else:
                    damaged[job.source] = result.reason if isinstance(result, Crash) else result
                    (out / job.target).unlink(missing_ok=True)  # a copy of an older version of the source
                progress(Progress("preparing", len(made) + len(damaged), total, "", num_kept, "files"))
        except KeyboardInterrupt:
            done = len(made) + len(damaged)
            raise KeyboardInterrupt(
                f"stopped: {done} of {len(plan.jobs)} files are done and stay; the same command makes the others"
            ) from None
        finally:
            results.close()
            remove_abandoned(out)
        for path, name in plan.lists:
            _copy_list(path, out / name)
        manifest = _write_manifest(out, plan, made)
        _write_damaged(out, damaged)
        good = [job for job in plan.jobs if job.target in made]
        report = PrepareReport(
            num_files=len(plan.jobs),
            num_made=len(made) - num_kept,
            num_kept=num_kept,
            damaged=tuple(sorted(damaged.items())),
            bytes_before=sum(made[job.target].source_bytes for job in good),
            bytes_after=sum(made[job.target].num_bytes for job in good),
            num_others=len(plan.lists),
            left_out=plan.left_out,
            manifest=manifest,
            loading=measure_loading([(job.source, str(out / job.target)) for job in good], settings.every),
        )
        _write_settings(out, plan, settings, report)
    return report


def report_document(report: PrepareReport) -> dict:
    """Returns a report as a dict for JSON."""
    speed = report.loading
    return {
        **asdict(report),
        "damaged": [{"path": path, "reason": reason} for path, reason in report.damaged],
        "loading": speed and {**asdict(speed), "ratio": speed.ratio},
    }


def _copy_in_process(item: tuple[Job, Path, CopySettings]) -> MadeCopy | str:
    """Makes one copy in a worker process, and returns its line of the journal, or the reason why there is no copy."""
    job, out, settings = item
    torch.set_num_threads(1)
    try:
        stamp = _stamp(job.source)  # before reading, so that a source that changes meanwhile is copied again
        with time_limit(job.source):
            copy = read_patiently(lambda: prepare_video(job.source, out / job.target, settings))
        return MadeCopy(job.target, *stamp, os.path.getsize(out / job.target), copy.num_frames)
    except VideoError as error:
        return error.reason
    except MemoryError:
        return "needs more memory than there is"


def _stamp(source: str) -> tuple[int, int]:
    """Returns (bytes, time of the last change in ns) of a file or of a folder of frames; (0, 0) if there is none."""
    try:
        stats = [os.stat(path) for path in ([source] if not os.path.isdir(source) else frame_files(source))]
    except (OSError, VideoError):
        return 0, 0
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _start_folder(out: Path, plan: CopyPlan, settings: CopySettings) -> None:
    """Makes ``out``. Raises RunError if it exists and contains anything but copies of the same videos with the same
    settings."""
    make_folder(out)
    names = {path.name for path in out.iterdir()} - {LOCK}
    if SETTINGS not in names:
        if others := {name for name in names if not is_temporary(name)}:
            raise RunError(f"{out} exists and contains {min(others)}, but no {SETTINGS}; choose another `out`")
        _write_settings(out, plan, settings, None)
        return
    try:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        source, old = before["source"], dict(before["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{out / SETTINGS}: cannot be read as the settings of copies; choose another `out`") from None
    if old != asdict(settings):
        names = [name for name in asdict(settings) if old.get(name) != getattr(settings, name)]
        changes = ", ".join(f"{name} {old.get(name)}, not {getattr(settings, name)}" for name in names)
        raise RunError(f"{out} contains copies with {changes}; use the same settings, or another `out`")
    if source != plan.source and os.path.exists(source):  # a source that no longer exists may have been moved
        raise RunError(f"{out} contains copies of {source}; for {plan.source} choose another `out`")


def _write_settings(out: Path, plan: CopyPlan, settings: CopySettings, report: PrepareReport | None) -> None:
    document = {"source": plan.source, "settings": asdict(settings), "report": report and report_document(report)}
    write_json(out / SETTINGS, document)


def _read_journal(out: Path) -> dict[str, MadeCopy]:
    journal = {}
    for line in read_json_lines(out / JOURNAL):
        with contextlib.suppress(TypeError):  # not a line of this evl: the copy is made again
            made = MadeCopy(**line)
            journal[made.copy] = made
    return journal


def _finished(out: Path, jobs: Sequence[Job], journal: dict[str, MadeCopy]) -> dict[str, MadeCopy]:
    """Returns target → its line, for the copies that exist, are complete, and whose source has not changed."""
    finished = {}
    for job in jobs:
        line = journal.get(job.target)
        with contextlib.suppress(OSError):
            is_complete = line is not None and os.path.getsize(out / job.target) == line.num_bytes
            if is_complete and _stamp(job.source) == (line.source_bytes, line.source_mtime_ns):
                finished[job.target] = line
    return finished


def _copy_list(source: Path, target: Path) -> None:
    try:
        stat = source.stat()
        if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None
    write_file(target, content)
    with contextlib.suppress(OSError):
        shutil.copystat(source, target)


def _write_manifest(out: Path, plan: CopyPlan, made: dict[str, MadeCopy]) -> str | None:
    if plan.manifest is None:
        return None
    targets = {job.source: job.target for job in plan.jobs}
    rows = [
        (replace(sample, path=str(out / targets[sample.path])), split)
        for split, samples in plan.manifest.splits.items()
        for sample in samples
        if targets[sample.path] in made
    ]
    splits = None if set(plan.manifest.splits) == {"all"} else [split for _, split in rows]
    write_manifest(out / plan.manifest_name, [sample for sample, _ in rows], splits)
    return str(out / plan.manifest_name)


def _write_damaged(out: Path, damaged: dict[str, str]) -> None:
    if not damaged:
        (out / DAMAGED).unlink(missing_ok=True)
        return
    write_table(out / DAMAGED, [("path", "reason"), *sorted(damaged.items())])
