"""The folder of timelines: it appears whole, and what is done so far waits beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.data.manifests.manifest import AnyPath
from evl.inference.formats import write_formats
from evl.inference.timeline import Timeline
from evl.inference.timeline_files import SCORES, SEGMENTS, names_of, unique_names, write_scores, write_segments
from evl.inference.timeline_page.page import PAGE, write_page
from evl.runtime.files import expand_home
from evl.runtime.out_folder import build_folder, hold_lock, lock_beside
from evl.saving import VideoClassifier


@dataclass(frozen=True)
class Timelines:
    """``timelines`` of the videos that could be read, in order. ``failed``: the name of each other video → reason."""

    timelines: tuple[Timeline, ...]
    failed: dict[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether all videos were read, and no stretch of any was damaged."""
        return not self.failed and not any(line.damaged for line in self.timelines)


def written(
    find: Callable[[Path | None], Timelines], out: AnyPath | None, formats: str | Sequence[str], page: bool
) -> Timelines:
    """What ``find`` returns, written to the folder ``out``, which is held meanwhile and appears whole.

    ``find`` is given a folder beside it for what is done so far. It stays if this process is killed, or fails, and is
    removed when ``out`` is there.
    """
    if out is None:
        return find(None)
    out = expand_home(Path(out))
    lock = lock_beside(out)
    work = lock.with_name(lock.name.removesuffix(".lock") + ".work")
    if lock.parent == Path(os.path.realpath(out)):  # nothing can be written beside it
        work = None
    with hold_lock(lock, out), build_folder(out) as folder:
        result = find(work)
        for run in dict.fromkeys(line.run for line in result.timelines):
            lines = [line for line in result.timelines if line.run == run]
            _write(folder / run, lines, len(lines) + len(result.failed) > 1, formats, page)
    if work is not None:
        shutil.rmtree(work, ignore_errors=True)
    return result


def _write(
    folder: Path, lines: Sequence[Timeline], has_folders: bool, formats: str | Sequence[str], page: bool
) -> None:
    folder.mkdir(exist_ok=True)
    if has_folders:
        write_segments(folder / SEGMENTS, lines)
    folders = [folder / name for name in names_of(lines)] if has_folders else [folder] * len(lines)
    for own, line in zip(folders, lines, strict=True):
        own.mkdir(exist_ok=True)
        write_segments(own / SEGMENTS, [line])
        write_scores(own / SCORES, line)
        if page:
            write_page(own / PAGE, line)
    write_formats(folder, lines, formats)


def run_names(models: Sequence[VideoClassifier]) -> list[str]:
    """A name for each model: that of its folder, with a number where several would be the same."""
    return unique_names([os.path.basename(os.path.abspath(one.folder)) if one.folder else "model" for one in models])
