"""Lists of labelled videos: CSV or Parquet, the original release's text list, a published layout, or a folder per
class."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evl.data.layouts import NAMES as LAYOUTS
from evl.data.layouts import find_layout, read_layout
from evl.data.manifests.folders import read_folder, unreadable_notices
from evl.data.manifests.labels import class_number, clean_class_names, clean_label, sort_labels
from evl.data.manifests.listing import Tree, is_video_name, missing_samples
from evl.data.manifests.tables import read_table
from evl.data.manifests.text import read_text
from evl.errors import ConfigError, DataError, nearest
from evl.runtime.files import expand_home, write_table
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name

log = logging.getLogger("evl")


@dataclass(frozen=True)
class Manifest:
    """Samples by split. A list without splits has the single split ``all``. ``ignored``: files that are no videos.

    ``layout``: how it was read, one of ``evl.data.layouts.NAMES``, ``folder`` or ``manifest``. ``missing``: samples,
    of all splits, whose file is not there; ``splits`` hold them too. ``num_unlabeled``: rows left out for want of a
    label. ``notices``: what was odd in reading it, a line each (``evl.data.notices`` adds to them).
    """

    source: str
    splits: dict[str, tuple[Sample, ...]]
    class_names: tuple[str, ...]
    ignored: tuple[str, ...] = field(default=())
    layout: str = "manifest"
    missing: tuple[Sample, ...] = field(default=())
    num_unlabeled: int = 0
    notices: tuple[str, ...] = field(default=())

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
    by their annotation files and else takes a folder per class; ``classes``: a folder per class even if the folders
    have names of splits. ``split_number``: which of HMDB51's or UCF101's three.

    Labels and class names are written one way (``evl.data.manifests.labels``). Raises DataError if it is missing, has
    no usable videos, lacks a column, is not of that layout, is unclear, or names a class that is unknown.
    """
    path, root = expand_home(Path(path)), None if root is None else expand_home(Path(root))
    if layout not in (known := ("auto", "folder", "classes", *LAYOUTS)):
        raise DataError(f"layout {layout!r} is unknown{nearest(layout, known)}")
    if not path.exists():
        raise DataError(f"{path}: no such manifest or folder")
    if layout in ("folder", "classes") and not path.is_dir():
        raise DataError(f"{path} is a file, but the layout {layout!r} is a folder per class; take layout auto")
    class_names = None if class_names is None else clean_class_names(class_names)
    published, ignored, num_unlabeled, notices = None, (), 0, ()
    if layout not in ("folder", "classes") and (found := find_layout(path, layout)) is not None:
        read = read_layout(found, root=root, split_number=split_number)
        layout, splits, published = found.name, read.splits, read.class_names
        missing, num_unlabeled = read.missing, read.num_unlabeled
    elif split_number != 1:
        raise DataError(f"{path}: split {split_number} is wanted, but no hmdb51 or ucf101 split lists were found here")
    elif path.is_dir():
        found = read_folder(path, class_names=class_names or (), only_classes=layout == "classes")
        layout, splits, ignored, missing, notices = "folder", found.splits, found.ignored, found.missing, found.notices
    else:
        layout = "manifest"
        splits, notices = read_table(path, root if root is not None else path.parent)
        missing = missing_samples([sample for group in splits.values() for sample in group])
    if not any(splits.values()):
        raise DataError(f"{path}: no videos found")
    if layout != "folder":  # a folder's name is a name, even if it is a number
        splits, missing = _numbers_to_names(path, splits, missing, class_names)
    labels = {sample.label for group in splits.values() for sample in group}
    for label in labels:
        if not label or len(label.splitlines()) != 1:
            raise DataError(f"{path}: class {label!r} has no name, or a line break in it; rename it")
    names = class_names or published or sort_labels(labels)
    if unknown := sorted(labels - set(names)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: unknown class {', '.join(map(repr, unknown[:3]))}{more}; "
            f"known are {', '.join(map(repr, names[:8]))}{' …' if len(names) > 8 else ''}"
        )
    return Manifest(str(path), splits, names, ignored, layout, missing, num_unlabeled, tuple(notices))


def _numbers_to_names(path: Path, splits: dict, missing: Sequence[Sample], class_names: Sequence[str] | None):
    """(splits, missing) with numbers written one way (``1.0`` is ``1``), and named where class names are given, of
    which none is itself a number."""
    labels = {sample.label for group in splits.values() for sample in group}
    numbers = {label: class_number(label) for label in labels}
    if None in numbers.values() or labels <= set(class_names or ()):
        return splits, missing
    if class_names is None or any(class_number(name) is not None for name in class_names):
        written = {label: label if "." not in label else str(number) for label, number in numbers.items()}
    else:
        written = {label: class_names[number] for label, number in numbers.items() if number < len(class_names)}
        if len(written) < len(numbers):
            _refuse_number(path, numbers.values(), len(class_names))

    def named(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(replace(sample, label=written[sample.label]) for sample in samples)

    return {split: named(group) for split, group in splits.items()}, named(missing)


def _refuse_number(path: Path, numbers: Collection[int], num_names: int) -> None:
    text = f"{path}: label {max(numbers)}, but there are only {num_names} class names"
    if min(numbers) == 1 and max(numbers) == num_names:
        text += "; labels seem to count from 1, but must count from 0: subtract 1 from each"
    else:
        text += f", for labels from 0 to {num_names - 1}"
    raise DataError(text)


def list_videos(path: str | Path) -> list[Path]:
    """All videos below a folder, by their endings, sorted: files, and folders of frames (the folder itself may be
    one); hidden files left out."""
    videos, ignored, notices = find_videos(path)
    for notice in notices:
        log.warning(notice)
    if ignored:
        log.info("%s: %d other files are ignored, such as %s", path, len(ignored), ignored[0])
    return videos


def find_videos(path: str | Path) -> tuple[list[Path], list[str], list[str]]:
    """(``list_videos``, the files that are none, which pictures of folders of frames are not, what is odd)."""
    videos, ignored, odd = [], [], []
    for listing in Tree(expand_home(path)).walk():
        if listing.unreadable:
            odd.append(listing)
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
    return videos, ignored, unreadable_notices(odd)


def write_manifest(path: str | Path, samples: Iterable[Sample], splits: Sequence[str] | None = None) -> None:
    """A CSV that ``read_manifest`` reads; paths below its folder are relative to it, others absolute.

    ``splits``: the split of each sample, where there are some.
    """
    folder = expand_home(Path(path)).absolute().parent

    def name(sample: Sample) -> str:
        file = Path(os.path.abspath(sample.path))
        if not file.is_relative_to(folder):
            return str(file)
        name = file.relative_to(folder).as_posix()
        return f"./{name}" if name.startswith("~") else name  # which would be a home folder to its reader

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
    """One class name a line, in the order of the labels; blanks around names, and empty lines, are left out.

    Raises ConfigError for what cannot be read, and where a name stands there twice.
    """
    try:
        lines = read_text(expand_home(path)).splitlines()
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read class names ({error.strerror})") from None
    try:
        return clean_class_names([line for line in lines if clean_label(line)])
    except DataError as error:
        raise ConfigError(f"{path}: {error}") from None
