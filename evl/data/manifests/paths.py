"""Paths that a caller gives in Python or on a command line → videos."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from evl.data.manifests.manifest import list_videos
from evl.data.manifests.tables import read_videos
from evl.errors import DataError, PathTypeError
from evl.runtime.files import expand_home
from evl.types import Sample
from evl.video.views import AnyPath

MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".txt")  # what is a list of videos, not one itself


def videos_at(paths: AnyPath | Iterable[AnyPath]) -> tuple[Sample, ...]:
    """An unlabelled sample for each video: files as they are given, all videos below folders, and the rows of manifests
    (``MANIFEST_SUFFIXES``), which need no labels and may be parts of files.

    Files need not exist: what is wrong with one is said when it is read. Raises PathTypeError for what is no path,
    DataError for a folder or manifest without videos, or a manifest that cannot be read.
    """
    samples: list[Sample] = []
    for path in _as_paths(paths):
        if os.path.isdir(path):
            found = tuple(Sample(str(video)) for video in list_videos(path))
        elif os.path.splitext(path)[1].lower() in MANIFEST_SUFFIXES:
            found = _listed(path)
        else:
            found = (Sample(path),)
        if not found:
            raise DataError(f"{path}: no videos in this {'folder' if os.path.isdir(path) else 'list'}")
        samples += found
    return tuple(samples)


def _listed(path: str) -> tuple[Sample, ...]:
    if not os.path.exists(path):
        raise DataError(f"{path}: no such list of videos")
    return read_videos(Path(path), Path(path).parent)


def _as_paths(paths) -> list[str]:
    if isinstance(paths, AnyPath):
        return [_as_path(paths)]
    # a file that is open is iterable too: its lines are no paths
    if not isinstance(paths, Iterable) or hasattr(paths, "read"):
        raise PathTypeError(_refusal("one path or several", paths))
    return [_as_path(path, place) for place, path in enumerate(paths)]


def _as_path(path, place: int | None = None) -> str:
    if not isinstance(path, AnyPath):
        where = "" if place is None else f" as number {place} of the list"
        raise PathTypeError(_refusal("a path", path, where))
    return expand_home(os.fsdecode(path))


def _refusal(wanted: str, got, where: str = "") -> str:
    return (
        f"expected {wanted}{where}, got {type(got).__name__} {got!r:.60}; give a str, bytes or pathlib.Path, "
        'such as "clip.mp4", or a list of them'
    )
