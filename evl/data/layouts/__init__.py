"""Layouts: published data sets as they are downloaded, recognized by their annotation files.

Each layout has a module here with ``LOOKED_FOR`` (the files that identify it, for errors), ``NUM_SPLITS``,
``find(files)``, which returns its annotation files among ``files``, and ``read(found, split_number)``, which turns
these into an ``Annotation`` (docs/adding-a-layout.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evl.data.layouts import diving48, hmdb51, kinetics, ssv1, ssv2, ucf101, videofolder
from evl.data.layouts.base import FoundLayout
from evl.data.layouts.locate import locate
from evl.data.manifests import Manifest
from evl.data.manifests.listing import Tree
from evl.errors import DataError

log = logging.getLogger("evl")

# in the order of the search: the last one accepts the most folders
_LAYOUTS = {
    "kinetics": kinetics, "ssv2": ssv2, "ssv1": ssv1, "hmdb51": hmdb51, "ucf101": ucf101, "diving48": diving48,
    "videofolder": videofolder,
}  # fmt: skip
NAMES = tuple(_LAYOUTS)
_ENDINGS = {".csv", ".json", ".jsonl", ".txt"}
_MAX_FOLDERS = 20  # a folder with more folders than this holds classes or frames, not annotations


def find_layout(path: Path, layout: str = "auto") -> FoundLayout | None:
    """Returns the layout of a folder, or of one Kinetics CSV; None if ``layout`` is ``auto`` and none fits.

    The search covers the folder, its folders, and theirs if there are few. Raises DataError if ``layout`` names a
    layout and its annotation files are not found.
    """
    candidates = _LAYOUTS if layout == "auto" else {layout: _LAYOUTS[layout]}
    if not path.is_dir():
        if "kinetics" in candidates and path.suffix.lower() == ".csv" and (files := kinetics.find([path])):
            return FoundLayout("kinetics", tuple(files), path.parent)
        if layout == "auto":
            return None
        wanted = f"{kinetics.LOOKED_FOR}, or a folder" if layout == "kinetics" else "a folder"
        raise DataError(f"{path} is a file, but the layout {layout!r} needs {wanted}")
    files: list[Path] = []
    for level in _near_top(path):
        files += level
        for name, module in candidates.items():
            if annotation_files := module.find(files):
                return FoundLayout(name, tuple(annotation_files), path)
    if layout == "auto":
        return None
    raise DataError(
        f"{path}: the layout {layout!r} was not found here, nor up to two folders down; it needs "
        f"{_LAYOUTS[layout].LOOKED_FOR}"
    )


def read_layout(found: FoundLayout, *, root: str | Path | None, split_number: int) -> Manifest:
    """Returns the samples of a layout, with their videos below ``root``, by default the folder of the layout.

    Raises DataError if the layout has no split list ``split_number``, or if an annotation file cannot be read.
    """
    module = _LAYOUTS[found.name]
    if not 1 <= split_number <= module.NUM_SPLITS:
        numbers = "only one split list" if module.NUM_SPLITS == 1 else f"split lists 1 to {module.NUM_SPLITS}"
        raise DataError(f"{found.folder}: split {split_number} was requested, but {found.name} has {numbers}")
    folder = Path(root) if root is not None else found.folder
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder of videos does not exist (data.root)")
    located = locate(module.read(found, split_number), folder, by_path=found.name == "videofolder")
    log.info(
        "%s: read as layout %s%s from %s: %s; %d videos are missing, %d rows without a label are left out",
        found.folder, found.name, f", split {split_number}," if module.NUM_SPLITS > 1 else "",
        ", ".join(file.name for file in found.files[:4]) + " …" * (len(found.files) > 4),
        ", ".join(f"{split} {len(group)}" for split, group in located.splits.items()) or "no videos",
        len(located.missing), located.num_unlabeled,
    )  # fmt: skip
    return replace(located, layout=found.name)


def _near_top(folder: Path) -> Iterator[list[Path]]:
    """Yields the files that may be annotations: those in the folder, then those one and two folders down."""
    tree = Tree(folder)
    level = [str(folder)]
    for depth in range(3):
        listings = [tree.list(path) for path in level]
        yield [
            Path(listing.path, name)
            for listing in listings
            for name in listing.files
            if Path(name).suffix.lower() in _ENDINGS and name not in listing.broken
        ]
        searched = [listing for listing in listings if depth == 0 or len(listing.folders) <= _MAX_FOLDERS]
        level = [str(Path(listing.path, name)) for listing in searched for name in listing.folders]
