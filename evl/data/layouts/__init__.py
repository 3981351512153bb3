"""Layouts: published data sets as they are downloaded, recognized by their annotation files.

Each layout has a module here with ``LOOKED_FOR`` (the files that identify it, for errors), ``NUM_SPLITS``,
``find(files)``, which returns its annotation files among ``files``, and ``read(found, split_number)``, which turns
these into an ``Annotation``, or into ``Segments`` (docs/adding-a-layout.md). ``SUFFIXES``, if a layout has it: the
endings of annotation files that may be given alone, without their folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evl.data.layouts import diving48, hmdb51, kinetics, ssv1, ssv2, ucf101, videofolder
from evl.data.layouts.base import FoundLayout
from evl.data.layouts.locate import locate
from evl.data.layouts.segments import activitynet, boris, elan, labelstudio, thumos14
from evl.data.layouts.segments.base import Segments
from evl.data.layouts.segments.places import locate_segments
from evl.data.manifests import Manifest
from evl.data.manifests.listing import Tree
from evl.errors import DataError

log = logging.getLogger("evl")

# in the order of the search: the last one accepts the most folders
_LAYOUTS = {
    "kinetics": kinetics, "ssv2": ssv2, "ssv1": ssv1, "hmdb51": hmdb51, "ucf101": ucf101, "diving48": diving48,
    "thumos14": thumos14, "labelstudio": labelstudio, "activitynet": activitynet, "boris": boris, "elan": elan,
    "videofolder": videofolder,
}  # fmt: skip
NAMES = tuple(_LAYOUTS)
_ENDINGS = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".boris", ".eaf"}
_MAX_FOLDERS = 20  # a folder with more folders than this holds classes or frames, not annotations


def find_layout(path: Path, layout: str = "auto") -> FoundLayout | None:
    """Returns the layout of a folder, or of one annotation file; None if ``layout`` is ``auto`` and none fits.

    The search covers the folder, its folders, and theirs if there are few. Raises DataError if ``layout`` names a
    layout and its annotation files are not found, or for a JSON file of no known layout.
    """
    candidates = _LAYOUTS if layout == "auto" else {layout: _LAYOUTS[layout]}
    if not path.is_dir():
        return _find_in_file(path, layout, candidates)
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


def _find_in_file(path: Path, layout: str, candidates: dict) -> FoundLayout | None:
    for name, module in candidates.items():
        if path.suffix.lower() in getattr(module, "SUFFIXES", ()) and module.find([path]):
            return FoundLayout(name, (path,), path.parent)
    if layout != "auto":
        alone = hasattr(_LAYOUTS[layout], "SUFFIXES") and _LAYOUTS[layout].SUFFIXES
        wanted = f"{_LAYOUTS[layout].LOOKED_FOR}, or a folder" if alone else "a folder"
        raise DataError(f"{path} is a file, but the layout {layout!r} needs {wanted}")
    if path.suffix.lower() == ".json":
        known = "; ".join(
            f"{name}: {module.LOOKED_FOR}"
            for name, module in _LAYOUTS.items()
            if ".json" in getattr(module, "SUFFIXES", ())
        )
        raise DataError(f"{path}: looks like JSON, but of no form that evl reads alone: {known}")
    return None


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
    read = module.read(found, split_number)
    if isinstance(read, Segments):
        located = locate_segments(read, folder, found.folder)
    else:
        located = locate(read, folder, by_path=found.name == "videofolder")
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
