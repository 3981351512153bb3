"""Published data sets as they are downloaded, recognised by their annotation files.

Each has a file here with ``LOOKED_FOR`` (what a person should find there), ``NUM_SPLITS``, ``find(files)``, which
picks its annotation files out of some, and ``read(found, split_number)``, which turns them into an ``Annotation``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from evl.data.layouts import diving48, hmdb51, kinetics, ssv1, ssv2, ucf101, videofolder
from evl.data.layouts.base import FoundLayout
from evl.data.layouts.locate import Located, locate
from evl.data.manifests.listing import Tree
from evl.errors import DataError

log = logging.getLogger("evl")

# in the order they are tried; the last is the least particular
_LAYOUTS = {
    "kinetics": kinetics, "ssv2": ssv2, "ssv1": ssv1, "hmdb51": hmdb51, "ucf101": ucf101, "diving48": diving48,
    "videofolder": videofolder,
}  # fmt: skip
NAMES = tuple(_LAYOUTS)
_ENDINGS = {".csv", ".json", ".jsonl", ".txt"}
_FEW_FOLDERS = 20  # annotations lie beside few others: class folders and folders of frames are not searched


def find_layout(path: Path, layout: str = "auto") -> FoundLayout | None:
    """The layout of a folder (or of one Kinetics CSV); None if ``auto`` recognises none.

    Annotation files are looked for in the folder, in its folders, and in theirs where there are few. Raises DataError,
    with what was looked for, if a named layout is not there.
    """
    candidates = _LAYOUTS if layout == "auto" else {layout: _LAYOUTS[layout]}
    if not path.is_dir():
        if "kinetics" in candidates and path.suffix.lower() == ".csv" and (files := kinetics.find([path])):
            return FoundLayout("kinetics", tuple(files), path.parent)
        if layout == "auto":
            return None
        wanted = f"{kinetics.LOOKED_FOR}, or a folder" if layout == "kinetics" else "a folder"
        raise DataError(f"{path}: the layout {layout!r} is read from {wanted}, not from this file")
    files: list[Path] = []
    for more in _near_top(path):
        files += more
        for name, module in candidates.items():
            if chosen := module.find(files):
                return FoundLayout(name, tuple(chosen), path)
    if layout == "auto":
        return None
    raise DataError(
        f"{path}: not laid out as {layout!r}: looked here and two folders down for {_LAYOUTS[layout].LOOKED_FOR}"
    )


def read_layout(found: FoundLayout, *, root: str | Path | None, split_number: int) -> Located:
    """The samples of a layout; videos are looked for below ``root``, by default the folder it was found in."""
    module = _LAYOUTS[found.name]
    if not 1 <= split_number <= module.NUM_SPLITS:
        there = "one split list only" if module.NUM_SPLITS == 1 else f"splits 1 to {module.NUM_SPLITS}"
        raise DataError(f"{found.folder}: split {split_number} is wanted, but {found.name} has {there}")
    folder = Path(root) if root is not None else found.folder
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of videos (data.root)")
    located = locate(module.read(found, split_number), folder, by_path=found.name == "videofolder")
    log.info(
        "%s: read as %s%s from %s: %s; %d videos are missing, %d rows without a label are left out",
        found.folder, found.name, f", split {split_number}," if module.NUM_SPLITS > 1 else "",
        ", ".join(file.name for file in found.files[:4]) + " …" * (len(found.files) > 4),
        ", ".join(f"{split} {len(group)}" for split, group in located.splits.items()) or "no videos",
        len(located.missing), located.num_unlabeled,
    )  # fmt: skip
    return located


def _near_top(folder: Path) -> Iterator[list[Path]]:
    """Files that may be annotations: those in the folder, then one and two folders down."""
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
        few = [listing for listing in listings if depth == 0 or len(listing.folders) <= _FEW_FOLDERS]
        level = [str(Path(listing.path, name)) for listing in few for name in listing.folders]
