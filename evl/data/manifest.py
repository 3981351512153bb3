"""Lists of labelled videos: CSV or Parquet, the original release's text list, a published layout, or a folder per
class."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evl.data.layouts import NAMES as LAYOUTS
from evl.data.layouts import find_layout, read_layout
from evl.data.listing import SPLIT_NAMES, VIDEO_SUFFIXES, Tree, is_video_name, missing_samples
from evl.data.tables import read_table
from evl.errors import ConfigError, DataError, nearest
from evl.files import write_atomically
from evl.types import Sample
from evl.video.frame_folder import is_image_name


@dataclass(frozen=True)
class Manifest:
    """Samples by split. A list without splits has the single split ``all``. ``ignored``: files that are no videos.

    ``layout``: how it was read, one of ``evl.data.layouts.NAMES``, ``folder`` or ``manifest``. ``missing``: samples,
    of all splits, whose file is not there; ``splits`` hold them too. ``num_unlabelled``: rows left out for want of a
    label.
    """

    source: str
    splits: dict[str, tuple[Sample, ...]]
    class_names: tuple[str, ...]
    ignored: tuple[str, ...] = field(default=())
    layout: str = "manifest"
    missing: tuple[Sample, ...] = field(default=())
    num_unlabelled: int = 0

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(sample for samples in self.splits.values() for sample in samples)

    def require_videos(self) -> None:
        """DataError if there is not one of the listed videos."""
        if self.missing and len(self.missing) == len(self.samples):
            refuse_missing(self.source, self.missing)


def refuse_missing(source: str | Path, missing: Sequence[Sample]) -> None:
    """The DataError for a list of which every video is missing."""
    raise DataError(
        f"{source}: all {len(missing)} videos are missing, such as {missing[0].path}; "
        "is it the right folder? data.root (--root) says where the videos lie"
    )


def read_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    layout: str = "auto",
    split_number: int = 1,
) -> Manifest:
    """Samples and class names of a folder, ``.csv``, ``.parquet``, or text list.

    Relative paths are relative to ``root``, by default the manifest's own folder; a layout's videos are looked for
    below it. ``class_names``: names in order, where labels are numbers or must be among them. Without it, class names
    are the published ones in their order, or the labels, sorted. ``layout``: ``auto`` recognises published data sets
    by their annotation files and else takes a folder per class. ``split_number``: which of HMDB51's or UCF101's three.

    Raises DataError if it is missing, has no usable videos, lacks a column, is not of that layout, or names a class
    that is unknown.
    """
    path = Path(path)
    if layout not in ("auto", "folder", *LAYOUTS):
        raise DataError(f"layout {layout!r} is unknown{nearest(layout, ['auto', 'folder', *LAYOUTS])}")
    if not path.exists():
        raise DataError(f"{path}: no such manifest or folder")
    if layout == "folder" and not path.is_dir():
        raise DataError(f"{path} is a file, but the layout 'folder' is a folder per class; take layout auto")
    published, ignored, num_unlabelled = None, (), 0
    if layout != "folder" and (found := find_layout(path, layout)) is not None:
        read = read_layout(found, root=root, split_number=split_number)
        layout, splits, published = found.name, read.splits, read.class_names
        missing, num_unlabelled = read.missing, read.num_unlabelled
    elif split_number != 1:
        raise DataError(f"{path}: split {split_number} is wanted, but no hmdb51 or ucf101 split lists were found here")
    elif path.is_dir():
        layout = "folder"
        splits, ignored, missing = _read_folder(path)
    else:
        layout, splits = "manifest", read_table(path, Path(root) if root is not None else path.parent)
        missing = missing_samples([sample for group in splits.values() for sample in group])
    samples = [sample for group in splits.values() for sample in group]
    if not samples:
        raise DataError(f"{path}: no videos found{_why_none(ignored) if layout == 'folder' else ''}")
    labels = {sample.label for sample in samples}
    for label in labels:
        if label != label.strip() or len(label.splitlines()) != 1:
            raise DataError(f"{path}: class {label!r} has blanks at an end, or a line break; rename it")
    names = tuple(class_names or published or _sorted_labels(labels))
    # numbers stand for names only in lists, and only where no name is itself a number
    if class_names and layout != "folder" and all(map(_is_number, labels)) and not any(map(_is_number, names)):
        if max(map(int, labels)) >= len(names):
            raise DataError(f"{path}: label {max(map(int, labels))}, but there are only {len(names)} class names")
        splits = {split: _named(group, names) for split, group in splits.items()}
        missing = _named(missing, names)
    elif unknown := sorted(labels - set(names)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: unknown class {', '.join(map(repr, unknown[:3]))}{more}; "
            f"known are {', '.join(map(repr, names[:8]))}{' …' if len(names) > 8 else ''}"
        )
    return Manifest(str(path), splits, names, ignored, layout, missing, num_unlabelled)


def list_videos(path: str | Path) -> list[Path]:
    """All videos below a folder, by their endings, sorted: files, and folders of frames (the folder itself may be
    one); hidden files left out."""
    videos = []
    for listing in Tree(path).walk():
        videos += [Path(listing.path, name) for name in listing.files if is_video_name(name)]
        if listing.is_frames:
            videos.append(Path(listing.path))
    return videos


def split_samples(
    samples: Sequence[Sample], *, val_fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, val): a seeded part of each class, at least one video where a class has two. Parts of one file
    (by start and end times) stay on one side."""
    files_by_class: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        files_by_class[sample.label][sample.path].append(sample)
    generator = np.random.default_rng(seed)
    val_paths: set[str] = set()
    for label in sorted(files_by_class):
        paths = sorted(files_by_class[label])
        count = round(len(paths) * val_fraction)
        count = min(max(count, 1), len(paths) - 1) if len(paths) > 1 else 0
        val_paths.update(paths[i] for i in generator.permutation(len(paths))[:count])
    train = tuple(sample for sample in samples if sample.path not in val_paths)
    return train, tuple(sample for sample in samples if sample.path in val_paths)


def write_manifest(path: str | Path, samples: Iterable[Sample], splits: Sequence[str] | None = None) -> None:
    """A CSV that ``read_manifest`` reads; paths below its folder are relative to it, others absolute.

    ``splits``: the split of each sample, where there are some.
    """
    folder = Path(path).absolute().parent

    def name(sample: Sample) -> str:
        file = Path(os.path.abspath(sample.path))
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)

    samples = list(samples)
    columns = {"path": [name(s) for s in samples], "label": [s.label or "" for s in samples]}
    for key in ("start_seconds", "end_seconds"):
        times = [getattr(s, key) for s in samples]
        if any(time is not None for time in times):
            columns[key] = ["" if time is None else time for time in times]
    if splits is not None:
        columns["split"] = list(splits)
    with write_atomically(path, text=True) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """One class name a line, in the order of the labels."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read class names ({error.strerror})") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: a class name stands there twice")
    return names


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal()


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    if all(map(_is_number, labels)):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _named(samples: Sequence[Sample], names: Sequence[str]) -> tuple[Sample, ...]:
    return tuple(replace(sample, label=names[int(sample.label)]) for sample in samples)


def _why_none(ignored: Sequence[str]) -> str:
    endings = " ".join(sorted(VIDEO_SUFFIXES))
    if any(map(is_image_name, map(os.path.basename, ignored))):
        return (
            f" (known endings: {endings}). There are pictures: a folder of frames counts as a video where it lies in a "
            "class folder, CLASS/VIDEO/00001.jpg"
        )
    return f" (known endings: {endings})"


def _read_folder(folder: Path) -> tuple[dict[str, tuple[Sample, ...]], tuple[str, ...], tuple[Sample, ...]]:
    """(samples by split, files that are no videos, samples that are links to nowhere)."""
    tree = Tree(folder)
    # pictures of what may be one video are not kept: there may be millions
    found = [
        (Path(listing.path).relative_to(folder).parts, replace(listing, files=()) if listing.is_frames else listing,
         listing.is_frames)
        for listing in tree.walk()
    ]  # fmt: skip
    tops = {parts[0] for parts, listing, is_frames in found if parts and (listing.files or is_frames)}
    has_splits = bool(tops) and all(name.lower() in SPLIT_NAMES for name in tops)
    if has_splits and any(len(parts) == 1 and any(map(is_video_name, listing.files)) for parts, listing, _ in found):
        has_splits = False  # train/a.mp4: "train" is then a class, perhaps of trains
    groups: dict[str, list[Sample]] = defaultdict(list)
    ignored: list[str] = []
    missing: list[Sample] = []
    for parts, listing, is_frames in found:
        split, inside = (SPLIT_NAMES[parts[0].lower()], parts[1:]) if has_splits and parts else ("all", parts)
        if is_frames and len(inside) > 1:
            groups[split].append(Sample(listing.path, inside[0]))
            continue
        for name in tree.list(listing.path).files if is_frames else listing.files:
            file = os.path.join(listing.path, name)
            if not is_video_name(name):
                ignored.append(file)
            elif not inside:
                raise DataError(
                    f"{file} lies in no class folder; expected {listing.path}/CLASS/{name}, "
                    "or a manifest with path,label"
                )
            else:
                groups[split].append(Sample(file, inside[0]))
                if name in listing.broken:
                    missing.append(groups[split][-1])
    return {split: tuple(group) for split, group in groups.items()}, tuple(ignored), tuple(missing)
