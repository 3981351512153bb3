"""Plans a folder of copies: the path of each copy, before any copy is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.data.manifests import Manifest
from evl.data.manifests.listing import VIDEO_SUFFIXES
from evl.data.manifests.manifest import find_videos, read_manifest
from evl.errors import DataError
from evl.runtime.files import expand_home

LIST_SUFFIXES = frozenset(".csv .tsv .json .jsonl .txt .list .parquet .yaml .yml .xml .md .eaf .boris".split())  # noqa: SIM905
MAX_LIST_BYTES = 64 * 2**20  # a larger file is data, not a list


@dataclass(frozen=True)
class Job:
    """A video, and the path of its copy below the folder of copies, with ``/`` between folders."""

    source: str
    target: str


@dataclass(frozen=True)
class CopyPlan:
    """The copies of a collection.

    ``source``: the folder or manifest of the videos. ``lists``: (file, path below the folder of copies) of each list
    that is copied too. ``left_out``: files that are neither videos nor lists. ``manifest``: the manifest of the videos,
    if there is one; ``manifest_name``: the file name of the new manifest of the copies.
    """

    source: str
    jobs: tuple[Job, ...]
    lists: tuple[tuple[Path, str], ...] = ()
    left_out: tuple[str, ...] = ()
    manifest: Manifest | None = None
    manifest_name: str | None = None


def plan_copies(data: str | Path, out: str | Path, *, reserved: Sequence[str] = ()) -> CopyPlan:
    """Returns what ``out`` will contain for a folder or a manifest ``data``.

    ``reserved``: names directly in ``out`` that a list must not have. Raises DataError if there are no videos, if two
    videos would get the same copy, or if copies and sources would lie in the same folder.
    """
    data, out = (Path(os.path.abspath(expand_home(path))) for path in (data, out))
    if data.is_dir():
        _refuse_inside(data, out)
        plan = _plan_folder(data, reserved)
    elif data.suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(f"{data} is a video; expected a folder of videos, or a manifest")
    else:
        plan = _plan_manifest(data, reserved)
    if not plan.jobs:
        raise DataError(f"{data}: no videos found (known endings: {' '.join(sorted(VIDEO_SUFFIXES))})")
    _refuse_collisions(plan, out)
    return plan


def _plan_folder(folder: Path, reserved: Sequence[str]) -> CopyPlan:
    videos, ignored, _ = find_videos(folder)
    jobs = tuple(Job(str(video), _copy_name(video.relative_to(folder))) for video in videos)
    lists, left_out = [], []
    for file in map(Path, ignored):
        name = file.relative_to(folder).as_posix()
        is_list = file.suffix.lower() in LIST_SUFFIXES and name not in reserved and file.is_file()
        if is_list and file.stat().st_size <= MAX_LIST_BYTES:
            lists.append((file, name))
        else:
            left_out.append(str(file))
    return CopyPlan(str(folder), jobs, tuple(lists), tuple(left_out))


def _plan_manifest(path: Path, reserved: Sequence[str]) -> CopyPlan:
    manifest = read_manifest(path)
    sources = dict.fromkeys(sample.path for sample in manifest.samples)  # parts of one file share one copy
    jobs = tuple(Job(source, _copy_name(_below(Path(os.path.abspath(source)), path.parent))) for source in sources)
    name = f"{path.stem}.csv"
    if name in reserved:
        name = f"{path.stem}-copies.csv"
    return CopyPlan(str(path), jobs, manifest=manifest, manifest_name=name)


def _below(file: Path, folder: Path) -> Path:
    """Returns the file's path relative to the folder, or its whole path without the root if it lies outside."""
    return file.relative_to(folder) if file.is_relative_to(folder) else file.relative_to(file.anchor)


def _copy_name(path: Path) -> str:
    known = path.suffix.lower() in VIDEO_SUFFIXES  # the ".5" of "clip v1.5" is not an ending
    return (path.with_suffix(".mp4") if known else path.with_name(path.name + ".mp4")).as_posix()


def _refuse_inside(data: Path, out: Path) -> None:
    source, target = Path(os.path.realpath(data)), Path(os.path.realpath(out))
    if target == source or target.is_relative_to(source):
        raise DataError(f"{out} is {data} or lies inside it; copies need a folder of their own")
    if source.is_relative_to(target):
        raise DataError(f"{data} lies inside {out}; copies need a folder of their own")


def _refuse_collisions(plan: CopyPlan, out: Path) -> None:
    by_target: dict[str, str] = {}
    for job in plan.jobs:
        other = by_target.setdefault(job.target, job.source)
        if other != job.source:
            raise DataError(f"{other} and {job.source} would both become {job.target}; rename one of them")
    real = os.path.realpath(out)
    if plan.manifest is not None and real == os.path.realpath(Path(plan.source).parent):
        raise DataError(f"{out} is the folder of {plan.source}; copies need a folder of their own")
    for job in plan.jobs:
        if Path(os.path.realpath(job.source)).is_relative_to(real):
            raise DataError(f"{job.source} lies inside {out}; copies need a folder of their own")
