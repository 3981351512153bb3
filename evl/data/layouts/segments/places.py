"""Finds the videos of segments: a file of annotations has their paths on another machine, addresses, or only names."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import url2pathname

from evl.data.layouts.base import name_of
from evl.data.layouts.locate import ByName
from evl.data.layouts.segments.base import SegmentRow, Segments
from evl.data.manifests import Manifest
from evl.errors import DataError
from evl.types import Sample

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts a code before the names of uploaded files
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # not the letter of a drive


def locate_segments(read: Segments, root: Path, folder: Path) -> Manifest:
    """Finds the videos of the segments; each segment becomes a sample that is a part of a video.

    A path that exists is taken as it is, or below ``root``, or below ``folder``, that of the annotations. If none does,
    the video is searched by its name without ending anywhere below ``root``; of several, it is the one whose folders
    have the same names, from the last one up. Raises DataError if two videos would be the same file.
    """
    names = {row.video: _names(row) for row in read.rows}
    files = {video: _existing(path_in(video), root, folder) for video in names}
    gone = {name for video, own in names.items() if files[video] is None for name in own}
    places = ByName(root, gone) if gone else None
    by_name: dict[str, str] = {}
    missing_videos = set()
    for video, path in files.items():
        if path is None and (found := _by_name(places, video, names[video])) is not None:
            if (other := by_name.setdefault(found, video)) != video:
                raise DataError(f"{other!r} and {video!r} would both be {found}; correct the paths in the annotations")
            files[video] = found
        elif path is None:
            files[video] = os.path.join(root, path_in(video))
            missing_videos.add(video)
    groups: dict[str, list[Sample]] = defaultdict(list)
    missing = []
    for row in read.rows:
        sample = Sample(files[row.video], row.label, row.start_seconds, row.end_seconds)
        groups[row.split].append(sample)
        if row.video in missing_videos:
            missing.append(sample)
    splits = {split: tuple(groups[split]) for split in ("train", "val", "test", "all") if split in groups}
    return Manifest(str(root), splits, missing=tuple(missing), notices=read.notices)


def path_in(text: str) -> str:
    """Returns the path in a text: that of a ``file:`` address, of Label Studio's addresses of local files, or the last
    part of any other address. Other texts are paths."""
    if text.startswith(("/data/local-files/", "data/local-files/")):
        (path,) = parse_qs(urlsplit(text).query).get("d", [""])[:1]
        return path if path.startswith("/") else f"/{path}"
    if not _SCHEME.match(text):
        return text
    address = urlsplit(text)
    if address.scheme == "file":
        return url2pathname(address.path)
    return unquote(address.path.rpartition("/")[2])


def _existing(path: str, root: Path, folder: Path) -> str | None:
    """Returns the first of these paths that exists, or None."""
    for candidate in (os.path.join(root, path), os.path.join(folder, path), os.path.join(root, path.lstrip("/"))):
        if path and "\0" not in candidate and os.path.exists(candidate):
            return os.path.normpath(candidate)
    return None


def _parts(video: str) -> list[str]:
    return path_in(video).replace("\\", "/").split("/")


def _names(row: SegmentRow) -> tuple[str, ...]:
    """The names, without endings, under which a row's video may be found."""
    name = name_of(_parts(row.video)[-1])
    uploaded = _UPLOADED.fullmatch(name)
    return tuple(dict.fromkeys((*row.names, name, *([uploaded[1]] if uploaded else []))))


def _by_name(places: ByName, video: str, names: Sequence[str]) -> str | None:
    """Returns the path of a video, or None."""
    folders = _parts(video)[-2::-1]
    for name in names:
        if paths := places.paths(name):
            return max(paths, key=lambda path: _num_equal(Path(path).parent.parts[::-1], folders))
    return None


def _num_equal(one: Sequence[str], other: Sequence[str]) -> int:
    """The number of equal parts in front of the first that differ."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))
