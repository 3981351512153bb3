"""Reads and writes lists of labeled videos: CSV, Parquet, text lists as in the original release, published layouts, and
a folder per class."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evl.data.layouts import NAMES as LAYOUTS
from evl.data.layouts import find_layout, read_layout
from evl.data.manifests import Manifest
from evl.data.manifests.folders import read_folder, unreadable_notices
from evl.data.manifests.labels import class_number, clean_class_names, sort_labels
from evl.data.manifests.listing import Tree, is_video_name
from evl.data.manifests.tables import read_table, read_videos
from evl.data.manifests.text_table import read_text
from evl.errors import ConfigError, DataError, PathTypeError, nearest
from evl.runtime.files import expand_home, write_table
from evl.runtime.text import clean_label
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name
from evl.video.views import AnyPath

log = logging.getLogger("evl")
Videos = AnyPath | Sample | Iterable[AnyPath | Sample]  # what ``videos_at`` takes
MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".txt")  # the endings of lists of videos


def read_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    layout: str = "auto",
    split_number: int = 1,
) -> Manifest:
    """Reads the samples and class names of a folder, a table (``.csv``, ``.parquet``) or a text list.

    Args:
        path: The folder or list.
        root: Relative paths in a list are relative to this folder, by default the list's own folder. The videos of a
            published layout are searched below it.
        class_names: All class names, in order. Labels must be among them, or be their numbers. None means the published
            names in their order, or else the labels, sorted.
        layout: ``auto`` recognizes published data sets by their annotation files; any other folder is a folder per
            class. ``classes`` is a folder per class, even if its folders have names of splits.
        split_number: Which of the three split lists of HMDB51 or UCF101.

    Labels and class names get the same spelling (``evl.data.manifests.labels``). Raises DataError if the list does not
    exist, contains no videos, has no column ``path`` or ``label``, is not in the layout, is ambiguous, or has a label
    that is not in ``class_names``.
    """
    path, root = expand_home(Path(path)), None if root is None else expand_home(Path(root))
    if layout not in (known := ("auto", "folder", "classes", *LAYOUTS)):
        raise DataError(f"layout {layout!r} is unknown{nearest(layout, known)}")
    if not path.exists():
        raise DataError(
            f"{path}: no such manifest or folder; expected a folder of videos, or a list of them (.csv, .parquet, "
            ".txt); correct the path, which counts from the folder you are in"
        )
    if layout in ("folder", "classes") and not path.is_dir():
        raise DataError(f"{path} is a file, but the layout {layout!r} is a folder per class; use the layout auto")
    class_names = None if class_names is None else clean_class_names(class_names)
    if layout not in ("folder", "classes") and (found := find_layout(path, layout)) is not None:
        read = read_layout(found, root=root, split_number=split_number)
    elif split_number != 1:
        raise DataError(f"{path}: split {split_number} was requested, but there are no hmdb51 or ucf101 split lists")
    elif path.is_dir():
        read = read_folder(path, class_names=class_names or (), only_classes=layout == "classes")
    else:
        read = read_table(path, root if root is not None else path.parent)
    splits, missing = read.splits, read.missing
    if not any(splits.values()):
        raise DataError(f"{path}: no videos found; expected a line for each, with its path and label")
    if read.layout != "folder":  # the name of a class folder is a class name, even if it is a number
        splits, missing = _numbers_to_names(path, splits, missing, class_names)
    labels = {sample.label for group in splits.values() for sample in group}
    for label in labels:
        if not label or len(label.splitlines()) != 1:
            raise DataError(f"{path}: the class name {label!r} is empty or contains a line break; rename the class")
    names = class_names or read.class_names or sort_labels(labels)
    if unknown := sorted(labels - set(names)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: unknown class {', '.join(map(repr, unknown[:3]))}{more}; "
            f"the known classes are {', '.join(map(repr, names[:8]))}{' …' if len(names) > 8 else ''}"
        )
    return replace(read, source=str(path), splits=splits, class_names=names, missing=missing)


def _numbers_to_names(path: Path, splits: dict, missing: Sequence[Sample], class_names: Sequence[str] | None):
    """Returns (splits, missing) with the same spelling for all numbers: ``1.0`` becomes ``1``. If ``class_names`` are
    given and none of them is a number, numbers become names."""
    labels = {sample.label for group in splits.values() for sample in group}
    numbers = {label: class_number(label) for label in labels}
    if None in numbers.values() or labels <= set(class_names or ()):
        return splits, missing
    if class_names is None or any(class_number(name) is not None for name in class_names):
        new_labels = {label: label if "." not in label else str(number) for label, number in numbers.items()}
    else:
        new_labels = {label: class_names[number] for label, number in numbers.items() if number < len(class_names)}
        if len(new_labels) < len(numbers):
            _refuse_number(path, numbers.values(), len(class_names))

    def relabel(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(replace(sample, label=new_labels[sample.label]) for sample in samples)

    return {split: relabel(group) for split, group in splits.items()}, relabel(missing)


def _refuse_number(path: Path, numbers: Collection[int], num_names: int) -> None:
    text = f"{path}: label {max(numbers)}, but there are only {num_names} class names"
    if min(numbers) == 1 and max(numbers) == num_names:
        text += "; the labels seem to count from 1, but they must count from 0: subtract 1 from each"
    else:
        text += f", for labels from 0 to {num_names - 1}"
    raise DataError(text)


def list_videos(path: str | Path) -> list[Path]:
    """Returns all videos below a folder, sorted: files with a video's ending, and folders of frames.

    The folder itself may be a folder of frames. Hidden files are left out. Ignored files are logged.
    """
    videos, ignored, notices = find_videos(path)
    for notice in notices:
        log.warning(notice)
    if ignored:
        log.info("%s: ignored %d files that are not videos, such as %s", path, len(ignored), ignored[0])
    return videos


def find_videos(path: str | Path) -> tuple[list[Path], list[str], list[str]]:
    """Returns (the videos of ``list_videos``, files that are neither videos nor frames, notices)."""
    videos, ignored, with_unreadable = [], [], []
    for listing in Tree(expand_home(path)).walk():
        if listing.unreadable:
            with_unreadable.append(listing)
        videos += [Path(listing.path, name) for name in listing.files if is_video_name(name)]
        is_frames = listing.is_frames
        if is_frames:
            videos.append(Path(listing.path))
        ignored += listing.not_entered
        ignored += [
            os.path.join(listing.path, name)
            for name in listing.files
            if not is_video_name(name) and not (is_frames and is_image_name(name))
        ]
    return videos, ignored, unreadable_notices(with_unreadable)


def write_missing(path: str | Path, missing: Mapping[str, Sequence[Sample]]) -> None:
    """Writes the videos of each split that are listed but do not exist: path, label, split."""
    rows = [(sample.path, sample.label, split) for split, group in missing.items() for sample in group]
    write_table(path, [("path", "label", "split"), *rows])


def write_manifest(path: str | Path, samples: Iterable[Sample], splits: Sequence[str] | None = None) -> None:
    """Writes a CSV file for ``read_manifest``. Raises SaveError if the system refuses.

    Paths below the folder of ``path`` are written relative to it, others are absolute. ``splits``: the split of each
    sample, if there are splits.
    """
    folder = expand_home(Path(path)).absolute().parent

    def name(sample: Sample) -> str:
        file = Path(os.path.abspath(sample.path))
        if not file.is_relative_to(folder):
            return str(file)
        name = file.relative_to(folder).as_posix()
        return f"./{name}" if name.startswith("~") else name  # a reader takes a leading ~ for the home folder

    samples = list(samples)
    columns = {"path": [name(s) for s in samples], "label": [s.label or "" for s in samples]}
    for key in ("start_seconds", "end_seconds"):
        times = [getattr(s, key) for s in samples]
        if any(time is not None for time in times):
            columns[key] = ["" if time is None else time for time in times]
    if any(s.group is not None for s in samples):
        columns["group"] = [s.group or "" for s in samples]
    if splits is not None:
        columns["split"] = list(splits)
    write_table(path, [list(columns), *zip(*columns.values(), strict=True)])


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads a text file with one class name per line, in the order of the labels, without blanks and empty lines.

    Raises ConfigError if the file cannot be read, or if a name appears twice.
    """
    path = expand_home(path)
    try:
        text = read_text(path)
        # not splitlines alone, which also ends a line at rare characters that a name may have
        lines = text.split("\n") if "\n" in text else text.splitlines()
        return clean_class_names([line for line in lines if clean_label(line)], path)
    except DataError as error:
        raise ConfigError(str(error)) from None


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
            raise DataError(
                f"{one}: no videos in this {'folder; it needs files such as clip.mp4' if is_folder else 'list'}"
            )
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
