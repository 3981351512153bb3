"""Turns the paths that a caller or a command line gives into videos."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from evl.data.manifests.manifest import list_videos
from evl.data.manifests.tables import read_videos
from evl.errors import DataError, PathTypeError
from evl.runtime.files import expand_home
from evl.types import Sample
from evl.video.views import AnyPath

Videos = AnyPath | Sample | Iterable[AnyPath | Sample]  # what ``videos_at`` takes
MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".txt")  # the endings of lists of videos


def videos_at(videos: Videos) -> tuple[Sample, ...]:
    """Returns an unlabeled sample for each video: a file, each video below a folder, or each row of a manifest.

    Samples stay as they are. A manifest has one of the endings ``MANIFEST_SUFFIXES``; it needs no labels, and a row may
    be a part of a file. Files need not exist: their errors appear when they are read. Raises PathTypeError for anything
    that is neither a path nor a sample, DataError for a folder or manifest without videos, or a manifest that cannot be
    read.
    """
    samples: list[Sample] = []
    for one in _as_list(videos):
        if isinstance(one, Sample):
            samples.append(one)
            continue
        found = (Sample(one),)
        if is_folder := os.path.isdir(one):
            found = tuple(Sample(str(video)) for video in list_videos(one))
        elif _is_list(one):
            found = read_videos(Path(one), Path(one).parent)
        if not found:
            raise DataError(f"{one}: no videos in this {'folder' if is_folder else 'list'}")
        samples += found
    return tuple(samples)


def labeled_videos_at(videos: Videos) -> tuple[Sample, ...]:
    """Returns a labeled sample for each video: the label of a file is the name of the folder that it is in.

    Samples stay as they are. Raises PathTypeError for anything that is neither a path nor a sample, DataError for a
    folder or manifest, which ``read_manifest`` reads.
    """
    samples = []
    for one in _as_list(videos):
        if not isinstance(one, Sample):
            if os.path.isdir(one) or _is_list(one):
                raise DataError(
                    f"{one} is no single video; a folder or list of labeled videos becomes samples by "
                    "evl.read_manifest(path).samples"
                )
            one = Sample(one, os.path.basename(os.path.dirname(os.path.abspath(one))))
        samples.append(one)
    return tuple(samples)


def is_one_video(videos: Videos) -> bool:
    """Returns whether it is a sample, or the path of a file that is neither a folder nor a manifest."""
    if isinstance(videos, Sample):
        return True
    if not isinstance(videos, AnyPath):
        return False
    path = expand_home(os.fsdecode(videos))
    return not os.path.isdir(path) and not _is_list(path)


def _is_list(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in MANIFEST_SUFFIXES


def _as_list(videos) -> list[str | Sample]:
    if isinstance(videos, AnyPath | Sample):
        videos = [videos]
    # an open file is iterable too, but its lines are not paths
    elif not isinstance(videos, Iterable) or hasattr(videos, "read"):
        raise _type_error("one path or several", videos)
    checked = []
    for number, one in enumerate(videos):
        if not isinstance(one, AnyPath | Sample):
            raise _type_error(f"a path as number {number} of the list", one)
        if isinstance(one, Sample):
            checked.append(replace(one, path=os.fsdecode(one.path)))
        else:
            checked.append(expand_home(os.fsdecode(one)))
    return checked


def _type_error(wanted: str, value) -> PathTypeError:
    return PathTypeError(
        f"expected {wanted}, got {type(value).__name__} {value!r:.60}; give a str, bytes or pathlib.Path, "
        'such as "clip.mp4", or a list of them'
    )
