"""A folder with a folder per class, with or without folders of splits around them → samples."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evl.data.manifests.labels import clean_label
from evl.data.manifests.listing import VIDEO_SUFFIXES, Listing, Tree, is_video_name
from evl.data.manifests.split_names import folder_splits, inner_splits, read_split
from evl.errors import DataError, UnlabeledError
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name


@dataclass(frozen=True)
class FolderContent:
    """Samples by split, what was found that is no video, samples that are links to nowhere, and what is odd."""

    splits: dict[str, tuple[Sample, ...]]
    ignored: tuple[str, ...]
    missing: tuple[Sample, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """One folder: the folders on the way to it, its listing (of what is one video, without its pictures: there may be
    millions), and whether it is one video."""

    parts: tuple[str, ...]
    listing: Listing
    is_frames: bool

    @property
    def has_files(self) -> bool:
        return any(map(is_video_name, self.listing.files))

    @property
    def has_videos(self) -> bool:
        """Whether there are videos of a class here, whose folder is the first on the way."""
        return bool(self.parts) and (self.has_files or (self.is_frames and len(self.parts) > 1))


def read_folder(folder: Path, *, class_names: Sequence[str] = (), only_classes: bool = False) -> FolderContent:
    """The videos below a folder with their classes and splits. ``only_classes``: its folders are classes, whatever
    their names; they are as well if each is one of ``class_names``.

    Raises DataError where it cannot be told which folders are splits, UnlabelledError where videos lie in no class
    folder or there are none.
    """
    tree = Tree(folder)
    found = [
        _Found(
            Path(listing.path).relative_to(folder).parts,
            replace(listing, files=()) if listing.is_frames else listing,
            listing.is_frames,
        )
        for listing in tree.walk()
    ]
    splits = None if only_classes else _splits(folder, found, class_names)
    groups: dict[str, list[Sample]] = defaultdict(list)
    spellings: dict[str, set[str]] = defaultdict(set)
    ignored: list[str] = []
    missing: list[Sample] = []
    for one in found:
        listing, inside = one.listing, one.parts
        ignored += listing.not_entered
        split = "all"
        if splits is not None and inside:
            split, inside = splits.get(inside[0], "all"), inside[1:]
        label = clean_label(inside[0]) if inside else None
        if one.is_frames and len(inside) > 1:
            spellings[label].add(inside[0])
            groups[split].append(Sample(listing.path, label))
            continue
        for name in tree.list(listing.path).files if one.is_frames else listing.files:
            file = os.path.join(listing.path, name)
            if not is_video_name(name):
                ignored.append(file)
            elif not inside:
                raise UnlabeledError(
                    f"{file} lies in no class folder; expected {listing.path}/CLASS/{name}, "
                    "or a manifest with path,label"
                )
            else:
                spellings[label].add(inside[0])
                groups[split].append(Sample(file, label))
                if name in listing.broken:
                    missing.append(groups[split][-1])
    if not groups:
        raise UnlabeledError(f"{folder}: no videos found{_why_none(ignored)}")
    notices = [*unreadable_notices(one.listing for one in found), *_one_class_of_many(spellings)]
    return FolderContent(
        {split: tuple(group) for split, group in groups.items()}, tuple(ignored), tuple(missing), tuple(notices)
    )


def _splits(folder: Path, found: Sequence[_Found], class_names: Sequence[str]) -> dict[str, str] | None:
    """Folder → split, for the folders in ``folder`` that hold videos; None if they are classes."""
    inner: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.has_videos:
            inner[one.parts[0]].update(one.parts[1:2])
    if class_names and all(clean_label(name) in class_names for name in inner):
        below = {clean_label(name) for names in inner.values() for name in names}
        if not below or not below <= set(class_names):
            return None
    with_files = {one.parts[0] for one in found if len(one.parts) == 1 and one.has_files}
    with_frames = {one.parts[0] for one in found if len(one.parts) == 2 and one.is_frames}
    try:
        splits = folder_splits({name: name in with_files for name in inner}, with_frames)
    except DataError as error:
        raise DataError(
            f"{folder}: {error}; the classes are not clear. {_ways_out(folder, inner.keys() - with_files)}"
        ) from None
    if splits is not None:
        return splits
    for name, names in sorted(inner.items()):
        if two := inner_splits(names):
            inside = f"{folder}: the folders {' and '.join(map(repr, two))} in {name!r} look like splits"
            if len(inner) == 1:
                raise DataError(f"{inside}. Give that folder instead: {folder / name}")
            raise DataError(
                f"{inside}, but classes are expected inside of splits: {two[0]}/{name}/VIDEO. {_ways_out(folder, ())}"
            )
    return None


def _ways_out(folder: Path, tops: Iterable[str]) -> str:
    """What to do where splits and classes cannot be told apart. ``tops``: folders with class folders in them."""
    readings = {name: reading for name in sorted(tops, reverse=True) if (reading := read_split(name)) is not None}
    by_split = {reading.split: name for name, reading in readings.items() if not reading.rest}
    one_by_one = ""
    if "train" in by_split and len(by_split) > 1:
        train, other = folder / by_split["train"], folder / (by_split.get("val") or by_split["test"])
        one_by_one = f", or give them one by one (--data {shlex.quote(str(train))} --set data.val_path={other})"
    return (
        "If each of these folders is a class, say data.layout=classes (--layout classes); if some are splits, name "
        f"them train, val and test and move the others out of {folder}{one_by_one}; or list the videos in a manifest "
        "(path,label,split)"
    )


def unreadable_notices(listings: Iterable[Listing]) -> list[str]:
    """A line on names that are not UTF-8: videos and folders that are left out."""
    names = [os.path.join(listing.path, name) for listing in listings for name in listing.unreadable]
    if not names:
        return []
    return [
        f"{_count(len(names), 'file or folder is', 'files or folders are')} left out, as a name is not UTF-8, such as "
        f"{names[0]}; rename them (convmv does it for many)"
    ]


def _one_class_of_many(spellings: dict[str, set[str]]) -> list[str]:
    return [
        f"the folders {', '.join(map(ascii, sorted(names)))} are read as one class, {label!r}: they differ in blanks "
        "around the name, or in how accents are encoded"
        for label, names in sorted(spellings.items())
        if len(names) > 1
    ]


def _why_none(ignored: Sequence[str]) -> str:
    endings = " ".join(sorted(VIDEO_SUFFIXES))
    if any(map(is_image_name, map(os.path.basename, ignored))):
        return (
            f" (known endings: {endings}). There are pictures: a folder of frames counts as a video where it lies in a "
            "class folder, CLASS/VIDEO/00001.jpg"
        )
    return f" (known endings: {endings})"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
