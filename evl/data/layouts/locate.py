"""Turns the rows of an annotation into samples: finds their files, whole or already cut, with any ending."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import av

from evl.data.layouts.base import Annotation, Row, name_of
from evl.data.manifests import Manifest
from evl.data.manifests.listing import SPLIT_NAMES, Tree, is_video_name
from evl.errors import DataError, VideoError
from evl.runtime.text import clean_label
from evl.types import Sample
from evl.video.decode.container import open_video

log = logging.getLogger("evl")
_NUM_OPENED = 16
_SLACK_SECONDS = 2.0  # parts are cut at key frames, so a part may be longer than its times


def locate(annotation: Annotation, root: Path, *, by_path: bool = False) -> Manifest:
    """Finds the videos of the rows below ``root``: by name in any folder, or exactly at their paths (``by_path``).

    A row whose video is missing becomes a sample too, with its published name. Raises DataError for a name that no file
    can have.
    """
    rows = [row for row in dict.fromkeys(annotation.rows) if row.label is not None]
    for row in rows:
        _refuse_unwritable(row.file)
        _refuse_unwritable(row.label)
    num_unlabeled = sum(row.label is None for row in annotation.rows)
    names = {name for row in rows for name in (row.name, row.uncut) if name is not None}
    places = ByPath(root) if by_path else ByName(root, names)
    parts = [places.find(row.name, row) for row in rows]
    uncut = [
        places.find(row.uncut, row) if part is None and row.uncut is not None else None
        for row, part in zip(rows, parts, strict=True)
    ]
    lengths = {file: row.end_seconds - row.start_seconds for row, file in zip(rows, uncut, strict=True) if file}
    cut = bool(lengths) and not are_trimmed(lengths)
    groups: dict[str, list[Sample]] = defaultdict(list)
    missing = []
    for row, part, whole in zip(rows, parts, uncut, strict=True):
        path = part or whole or os.path.join(root, row.file)
        if cut and whole is not None and is_video_name(whole):  # a folder of frames has no times of its own
            sample = Sample(path, row.label, row.start_seconds, row.end_seconds)
        else:
            sample = Sample(path, row.label)
        groups[row.split].append(sample)
        if part is None and whole is None:
            missing.append(sample)
    splits = {split: tuple(groups[split]) for split in ("train", "val", "test", "all") if split in groups}
    names = annotation.class_names or ()
    return Manifest(str(root), splits, names, missing=tuple(missing), num_unlabeled=num_unlabeled)


def _refuse_unwritable(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name {name!r} in an annotation is not UTF-8") from None
    if "\0" in name:
        raise DataError(f"the name {name!r} in an annotation has a zero byte")


def are_trimmed(length_seconds: Mapping[str, float]) -> bool:
    """Returns whether most of the files last no longer than the part that is wanted of them.

    ``length_seconds``: path → length of the part. Only a few files are opened, and only for the duration in their
    headers. If no header has a duration, the files count as whole videos.
    """
    files = sorted(path for path in length_seconds if is_video_name(path))
    opened = files[:: max(1, len(files) // _NUM_OPENED)][:_NUM_OPENED]
    durations = {path: duration for path in opened if (duration := _container_seconds(path)) is not None}
    short = sum(duration <= length_seconds[path] + _SLACK_SECONDS for path, duration in durations.items())
    trimmed = short > len(durations) / 2
    log.info(
        "files named by a video's id alone: %d of %d opened files last no longer than their part, so all of them %s",
        short, len(durations), "count as trimmed" if trimmed else "count as untrimmed, and are cut by the listed times",
    )  # fmt: skip
    return trimmed


def _container_seconds(path: str) -> float | None:
    """Returns the duration in a file's header; None if there is none, or if the file cannot be opened."""
    try:
        with open_video(path, one_thread=True) as (container, _):
            return container.duration / av.time_base if container.duration and container.duration > 0 else None
    except VideoError:
        return None


class ByName:
    """Finds videos anywhere below ``root`` whose name, without ending, is one of ``names``.

    It lists every folder once. It does not enter folders with one of the names: Something-Something v1 has 108,499 of
    them, with about forty pictures each.
    """

    def __init__(self, root: str | Path, names: Collection[str]):
        self._files: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[str, list[str]] = defaultdict(list)
        for listing in Tree(root).walk(stay_out=names):
            for file in listing.files:
                if is_video_name(file) and (name := name_of(file)) in names and file not in listing.broken:
                    self._files[name].append(os.path.join(listing.path, file))
            for folder in listing.folders:
                if folder in names:
                    self._folders[folder].append(os.path.join(listing.path, folder))

    def paths(self, name: str) -> list[str]:
        """Returns the paths of all files of this name, or else of all folders."""
        return self._files.get(name) or self._folders.get(name) or []

    def find(self, name: str, row: Row) -> str | None:
        """Returns the path of a video, or None. Files come before folders; of several files, the one whose folders have
        the names of its class and split comes first."""
        paths = self.paths(name) or [None]
        if len(paths) == 1:
            return paths[0]
        likely = {_plain(row.label), _plain(row.split)}
        return max(paths, key=lambda path: len(likely.intersection(map(_plain, Path(path).parent.parts))))


class ByPath:
    """Finds videos at the paths of their rows below ``root``, or in the same folder with another ending."""

    def __init__(self, root: str | Path):
        self._tree = Tree(root)
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, name: str, row: Row) -> str | None:
        """Returns the path of a row's video, or None."""
        folder, file = os.path.split(os.path.join(self._tree.root, row.file))
        if folder not in self._folders:
            self._folders[folder] = self._names(folder)
        entry = self._folders[folder].get(file) or self._folders[folder].get(name)
        return os.path.join(folder, entry) if entry else None

    def _names(self, folder: str) -> dict[str, str]:
        """Returns requested name → name in the folder: full names first, then names without ending, then folders."""
        try:
            listing = self._tree.list(folder)
        except DataError:
            return {}
        files = [file for file in listing.files if is_video_name(file) and file not in listing.broken]
        return {**{name: name for name in listing.folders}, **{name_of(f): f for f in files}, **{f: f for f in files}}


def _plain(folder: str) -> str:
    """Returns a folder's name for comparison: in lower case, blanks as underscores, each split in one spelling."""
    folder = clean_label(folder).lower().replace(" ", "_")
    return SPLIT_NAMES.get(folder, folder)
