"""Turns a folder with a folder per class into samples; the class folders may lie inside folders of splits."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evl.data.manifests import Manifest
from evl.data.manifests.listing import VIDEO_SUFFIXES, Listing, Tree, is_video_name
from evl.data.manifests.split_names import folder_splits, inner_splits, read_split
from evl.errors import DataError, UnlabeledError
from evl.runtime.text import clean_label
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name


@dataclass(frozen=True)
class _Folder:
    """One folder: the folders on the way to it, its listing, and whether it is one video (a folder of frames).

    The listing of a folder of frames has no files, because all of them together may be millions.
    """

    parts: tuple[str, ...]
    listing: Listing
    is_frames: bool

    @property
    def has_files(self) -> bool:
        return any(map(is_video_name, self.listing.files))

    @property
    def has_videos(self) -> bool:
        """Whether this folder holds videos of a class, or is one; the first of ``parts`` is the class folder."""
        return bool(self.parts) and (self.has_files or (self.is_frames and len(self.parts) > 1))


def read_folder(folder: Path, *, class_names: Sequence[str] = (), only_classes: bool = False) -> Manifest:
    """Returns the videos below a folder, with their classes and splits.

    With ``only_classes``, its folders are classes, whatever their names. They are also classes if each of them is one
    of ``class_names``. Raises DataError if it is not clear which folders are splits, UnlabeledError if there are no
    videos, or videos outside of class folders.
    """
    tree = Tree(folder)
    folders = [
        _Folder(
            Path(listing.path).relative_to(folder).parts,
            replace(listing, files=()) if listing.is_frames else listing,
            listing.is_frames,
        )
        for listing in tree.walk()
    ]
    splits = None if only_classes else _splits(folder, folders, class_names)
    groups: dict[str, list[Sample]] = defaultdict(list)
    spellings: dict[str, set[str]] = defaultdict(set)
    ignored: list[str] = []
    missing: list[Sample] = []
    for current in folders:
        listing, parts = current.listing, current.parts
        ignored += listing.not_entered
        split = "all"
        if splits is not None and parts:
            split, parts = splits.get(parts[0], "all"), parts[1:]
        label = clean_label(parts[0]) if parts else None
        if current.is_frames and len(parts) > 1:
            spellings[label].add(parts[0])
            groups[split].append(Sample(listing.path, label))
            continue
        for name in tree.list(listing.path).files if current.is_frames else listing.files:
            file = os.path.join(listing.path, name)
            if not is_video_name(name):
                ignored.append(file)
            elif not parts:
                raise UnlabeledError(
                    f"{file} is not in a class folder; expected {listing.path}/CLASS/{name}, "
                    "or a manifest with path,label"
                )
            else:
                spellings[label].add(parts[0])
                groups[split].append(Sample(file, label))
                if name in listing.broken:
                    missing.append(groups[split][-1])
    if not groups:
        raise UnlabeledError(
            f"{folder}: no videos found{_describe_endings(ignored)}; put each video into a folder "
            f"that has the name of its class: {folder}/CLASS/VIDEO"
        )
    notices = [*unreadable_notices(current.listing for current in folders), *_spelling_notices(spellings)]
    splits = {split: tuple(group) for split, group in groups.items()}
    return Manifest(
        str(folder), splits, ignored=tuple(ignored), layout="folder", missing=tuple(missing), notices=tuple(notices)
    )


def _splits(folder: Path, folders: Sequence[_Folder], class_names: Sequence[str]) -> dict[str, str] | None:
    """Returns folder → split for the folders in ``folder`` that hold videos; None if they are classes."""
    inner: dict[str, set[str]] = defaultdict(set)
    for current in folders:
        if current.has_videos:
            inner[current.parts[0]].update(current.parts[1:2])
    if class_names and all(clean_label(name) in class_names for name in inner):
        inner_labels = {clean_label(name) for names in inner.values() for name in names}
        if not inner_labels or not inner_labels <= set(class_names):
            return None
    with_files = {current.parts[0] for current in folders if len(current.parts) == 1 and current.has_files}
    with_frames = {current.parts[0] for current in folders if len(current.parts) == 2 and current.is_frames}
    try:
        splits = folder_splits({name: name in with_files for name in inner}, with_frames)
    except DataError as error:
        raise DataError(
            f"{folder}: {error}, so it is not clear which folders are classes. "
            f"{_advice(folder, inner.keys() - with_files)}"
        ) from None
    if splits is not None:
        return splits
    for name, names in sorted(inner.items()):
        if split_folders := inner_splits(names):
            problem = f"{folder}: the folders {' and '.join(map(repr, split_folders))} in {name!r} look like splits"
            if len(inner) == 1:
                raise DataError(f"{problem}. Give that folder instead: {folder / name}")
            raise DataError(
                f"{problem}, but classes must lie inside splits: {split_folders[0]}/{name}/VIDEO. {_advice(folder, ())}"
            )
    return None


def _advice(folder: Path, tops: Iterable[str]) -> str:
    """Returns what to do if splits and classes look alike. ``tops``: the folders that contain class folders."""
    readings = {name: reading for name in sorted(tops, reverse=True) if (reading := read_split(name)) is not None}
    by_split = {reading.split: name for name, reading in readings.items() if not reading.rest}
    one_by_one = ""
    if "train" in by_split and len(by_split) > 1:
        train, other = folder / by_split["train"], folder / (by_split.get("val") or by_split["test"])
        one_by_one = f", or give them one by one (`data={train}` and `data.val_path={other}`)"
    return (
        "If each of these folders is a class, give `layout=classes`. If some are splits, name "
        f"them train, val and test, and move the others out of {folder}{one_by_one}. Or list the videos in a manifest "
        "(path,label,split)"
    )


def unreadable_notices(listings: Iterable[Listing]) -> list[str]:
    """Returns a notice about files and folders that are left out because their names are not UTF-8."""
    names = [os.path.join(listing.path, name) for listing in listings for name in listing.unreadable]
    if not names:
        return []
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return [
        f"left out, because the name is not UTF-8: {names[0]}{more}; rename (the program convmv renames many at once)"
    ]


def _spelling_notices(spellings: dict[str, set[str]]) -> list[str]:
    return [
        f"the folders {', '.join(map(ascii, sorted(names)))} are read as one class, {label!r}: their names differ only "
        "in blanks at the ends, or in how accents are encoded"
        for label, names in sorted(spellings.items())
        if len(names) > 1
    ]


def _describe_endings(ignored: Sequence[str]) -> str:
    endings = f" (known endings: {' '.join(sorted(VIDEO_SUFFIXES))})"
    if any(map(is_image_name, map(os.path.basename, ignored))):
        return f"{endings}. There are pictures; a folder of frames must lie in a class folder: CLASS/VIDEO/00001.jpg"
    return endings
