"""Turns the paths that a caller or a command line gives into videos."""

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

MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".txt")  # the endings of lists of videos


def videos_at(paths: AnyPath | Iterable[AnyPath]) -> tuple[Sample, ...]:
    """Returns an unlabeled sample for each video: a file, each video below a folder, or each row of a manifest.

    A manifest has one of the endings ``MANIFEST_SUFFIXES``; it needs no labels, and a row may be a part of a file.
    Files need not exist: their errors appear when they are read. Raises PathTypeError for anything that is not a path,
    DataError for a folder or manifest without videos, or a manifest that cannot be read.
    """
    samples: list[Sample] = []
    for path in _as_paths(paths):
        is_folder = os.path.isdir(path)
        if is_folder:
            videos = tuple(Sample(str(video)) for video in list_videos(path))
        elif os.path.splitext(path)[1].lower() in MANIFEST_SUFFIXES:
            videos = read_videos(Path(path), Path(path).parent)
        else:
            videos = (Sample(path),)
        if not videos:
            raise DataError(f"{path}: no videos in this {'folder' if is_folder else 'list'}")
        samples += videos
    return tuple(samples)


def _as_paths(paths) -> list[str]:
    if isinstance(paths, AnyPath):
        paths = [paths]
    # an open file is iterable too, but its lines are not paths
    elif not isinstance(paths, Iterable) or hasattr(paths, "read"):
        raise _type_error("one path or several", paths)
    checked = []
    for number, path in enumerate(paths):
        if not isinstance(path, AnyPath):
            raise _type_error(f"a path as number {number} of the list", path)
        checked.append(expand_home(os.fsdecode(path)))
    return checked


def _type_error(wanted: str, value) -> PathTypeError:
    return PathTypeError(
        f"expected {wanted}, got {type(value).__name__} {value!r:.60}; give a str, bytes or pathlib.Path, "
        'such as "clip.mp4", or a list of them'
    )
