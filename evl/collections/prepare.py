"""A collection of videos → a folder of copies that are cheap to read, with the same paths, lists and times."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from evl.collections.copies import CopyPlan, Job, plan_copies
from evl.collections.copy_video import CopySettings, prepare_video
from evl.collections.loading_speed import LoadingSpeed, measure_loading
from evl.data.manifests.manifest import write_manifest
from evl.errors import DataError, RunError, SaveError, VideoError
from evl.runtime.files import (
    expand_home,
    is_temporary,
    lock_file,
    make_folder,
    remove_abandoned,
    write_atomically,
    write_table,
)
from evl.runtime.parallel import Crash, each_in_process, time_limit
from evl.runtime.progress import Progress, Report
from evl.video.decode.frame_folder import frame_files

SETTINGS, JOURNAL, DAMAGED, LOCK = "prepare.json", "prepare.jsonl", "damaged.csv", ".prepare.lock"


@dataclass(frozen=True)
class Made:
    """A line of the journal: a copy, by its path below the folder, and the source it was made from."""

    copy: str
    source_bytes: int
    source_mtime_ns: int
    num_bytes: int
    num_frames: int


@dataclass(frozen=True)
class PrepareReport:
    """``num_made`` now, ``num_kept`` from before; ``damaged``: (path, reason); bytes of all sources that have a copy
    and of these; other files carried along and left out; ``loading`` is None where nothing could be measured."""

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


def prepare(
    data: str | Path,
    out: str | Path,
    settings: CopySettings,
    *,
    num_workers: int | None = None,
    progress: Report = lambda report: None,
) -> PrepareReport:
    """Makes what is missing of the copies of ``data`` (folder or manifest) in ``out``.

    Raises DataError for a plan that cannot be, RunError where ``out`` holds something else, SaveError where the system
    refuses to write; what is complete by then stays, and is not made again.
    """
    out = Path(os.path.abspath(expand_home(out)))
    plan = plan_copies(data, out, reserved=(SETTINGS, JOURNAL, DAMAGED))
    _start_folder(out, plan, settings)
    with _alone(out):
        _remove_torn(out)
        journal = _read_journal(out)
        made = _complete(out, plan.jobs, journal)
        num_kept, damaged = len(made), {}
        total = len(plan.jobs)
        progress(Progress("preparing", num_kept, total, "", num_kept, "files"))
        todo = [(job, out, settings) for job in plan.jobs if job.target not in made]
        with write_atomically(out / JOURNAL, text=True) as file:  # anew: a torn last line would spoil the next one
            file.writelines(map(_line, journal.values()))
        work = each_in_process(_one, todo, num_workers or os.cpu_count() or 1)
        try:
            for (job, _, _), result in work:
                if isinstance(result, Made):
                    made[job.target] = result
                    _append(out, result)
                else:
                    damaged[job.source] = _reason(result)
                    # of an older source, which is not what is there now
                    (out / job.target).unlink(missing_ok=True)
                progress(Progress("preparing", len(made) + len(damaged), total, "", num_kept, "files"))
        except KeyboardInterrupt:
            done = len(made) + len(damaged)
            raise KeyboardInterrupt(
                f"stopped: {done} of {len(plan.jobs)} files are done and stay; the same command goes on from there"
            ) from None
        finally:
            work.close()
            _remove_torn(out)
        for path, name in plan.others:
            _carry(path, out / name)
        manifest = _write_list(out, plan, made)
        _write_damaged(out, damaged)
        good = [job for job in plan.jobs if job.target in made]
        report = PrepareReport(
            num_files=len(plan.jobs),
            num_made=len(made) - num_kept,
            num_kept=num_kept,
            damaged=tuple(sorted(damaged.items())),
            bytes_before=sum(made[job.target].source_bytes for job in good),
            bytes_after=sum(made[job.target].num_bytes for job in good),
            num_others=len(plan.others),
            left_out=plan.left_out,
            manifest=manifest,
            loading=measure_loading([(job.source, str(out / job.target)) for job in good], settings.every),
        )
        _write_settings(out, plan, settings, report)
    return report


def report_document(report: PrepareReport) -> dict:
    """A report for JSON."""
    speed = report.loading
    return {
        **asdict(report),
        "damaged": [{"path": path, "reason": reason} for path, reason in report.damaged],
        "loading": speed and {**asdict(speed), "ratio": speed.ratio},
    }


def _one(item: tuple[Job, Path, CopySettings]) -> Made | str:
    """What a worker does with one file: the line of its copy, or why there is none."""
    job, out, settings = item
    torch.set_num_threads(1)
    try:
        stamp = _stamp(job.source)  # before reading: a source that changes meanwhile is made again next time
        with time_limit(job.source):
            copy = prepare_video(job.source, out / job.target, settings)
        return Made(job.target, *stamp, copy.num_bytes, copy.num_frames)
    except VideoError as error:
        return error.reason
    except MemoryError:
        return "needs more memory than there is"


def _stamp(source: str) -> tuple[int, int]:
    """(bytes, time of the last change in ns) of a source, of a folder all its frames together; (0, 0) where none is."""
    try:
        stats = [os.stat(path) for path in ([source] if not os.path.isdir(source) else frame_files(source))]
    except (OSError, VideoError):
        return 0, 0
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _reason(result: str | Crash) -> str:
    return result.reason if isinstance(result, Crash) else result


def _start_folder(out: Path, plan: CopyPlan, settings: CopySettings) -> None:
    """Makes ``out``, or sees that it holds copies of the same videos in the same settings."""
    make_folder(out)
    names = {path.name for path in out.iterdir()} - {LOCK}
    if SETTINGS not in names:
        if torn := {name for name in names if not is_temporary(name)}:
            raise RunError(f"{out} is there already and holds {min(torn)}, but no {SETTINGS}; choose another --out")
        _write_settings(out, plan, settings, None)
        return
    try:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        source, old = before["source"], dict(before["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{out / SETTINGS}: cannot be read as the settings of copies; choose another --out") from None
    if old != asdict(settings):
        names = [name for name in asdict(settings) if old.get(name) != getattr(settings, name)]
        changes = ", ".join(f"{name} {old.get(name)}, not {getattr(settings, name)}" for name in names)
        raise RunError(f"{out} holds copies with {changes}; take the same settings, or another --out")
    if source != plan.source and os.path.exists(source):  # a collection may be moved
        raise RunError(f"{out} holds copies of {source}; for {plan.source} choose another --out")


def _write_settings(out: Path, plan: CopyPlan, settings: CopySettings, report: PrepareReport | None) -> None:
    document = {"source": plan.source, "settings": asdict(settings), "report": report and report_document(report)}
    with write_atomically(out / SETTINGS, text=True) as file:
        file.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuses a second run in the same folder, whose torn files would be those the first is writing."""
    with open(out / LOCK, "w") as file:
        if lock_file(file.fileno()) is False:
            raise RunError(f"{out}: another evl prepare is at work here; wait for it, or stop it")
        yield


def _remove_torn(out: Path) -> None:
    for parent, _, _ in os.walk(out):
        remove_abandoned(parent)


def _read_journal(out: Path) -> dict[str, Made]:
    try:
        lines = (out / JOURNAL).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):  # a line torn by a crash: that copy is made again
            made = Made(**json.loads(line))
            found[made.copy] = made
    return found


def _line(made: Made) -> str:
    return json.dumps(asdict(made), ensure_ascii=False) + "\n"


def _append(out: Path, made: Made) -> None:
    try:
        with open(out / JOURNAL, "a", encoding="utf-8") as file:
            file.write(_line(made))
    except OSError as error:
        raise SaveError(f"{out / JOURNAL} could not be written ({error.strerror or error})") from None


def _complete(out: Path, jobs: Sequence[Job], journal: dict[str, Made]) -> dict[str, Made]:
    """target → its line, where the copy is there, whole, and its source is what it was made from."""
    found = {}
    for job in jobs:
        line = journal.get(job.target)
        with contextlib.suppress(OSError):
            whole = line is not None and os.path.getsize(out / job.target) == line.num_bytes
            if whole and _stamp(job.source) == (line.source_bytes, line.source_mtime_ns):
                found[job.target] = line
    return found


def _carry(source: Path, target: Path) -> None:
    try:
        stat = source.stat()
        if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None
    with write_atomically(target) as file:
        file.write(content)
    with contextlib.suppress(OSError):
        shutil.copystat(source, target)


def _write_list(out: Path, plan: CopyPlan, made: dict[str, Made]) -> str | None:
    """The manifest of the copies that are there, if a manifest was given."""
    if plan.manifest is None:
        return None
    targets = {job.source: job.target for job in plan.jobs}
    rows = [
        (replace(s, path=str(out / targets[s.path])), split)
        for split, samples in plan.manifest.splits.items()
        for s in samples
        if targets[s.path] in made
    ]
    splits = None if set(plan.manifest.splits) == {"all"} else [split for _, split in rows]
    write_manifest(out / plan.manifest_name, [sample for sample, _ in rows], splits)
    return str(out / plan.manifest_name)


def _write_damaged(out: Path, damaged: dict[str, str]) -> None:
    if not damaged:
        (out / DAMAGED).unlink(missing_ok=True)
        return
    write_table(out / DAMAGED, [("path", "reason"), *sorted(damaged.items())])
