"""Finds the files of an annotation's videos; copies may have another ending, or be folders of frames."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from evl.data.layouts.base import Row, name_of
from evl.data.manifests.labels import clean_label
from evl.data.manifests.listing import SPLIT_NAMES, Tree, is_video_name
from evl.errors import DataError


class ByName:
    """Finds videos anywhere below ``root`` whose name, without ending, is one of ``names``.

    It lists every folder once. It does not enter folders with one of the names: Something-Something v1 has 108,499 of
    them, with about forty pictures each.
    """

    def __init__(self, root: str | Path, names: Collection[str]):
        self._files: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[str, list[str]] = defaultdict(list)
        for listing in Tree(root).walk(stay_out=names):
            for file in listing.files:
                if is_video_name(file) and (name := name_of(file)) in names and file not in listing.broken:
                    self._files[name].append(os.path.join(listing.path, file))
            for folder in listing.folders:
                if folder in names:
                    self._folders[folder].append(os.path.join(listing.path, folder))

    def find(self, name: str, row: Row) -> str | None:
        """Returns the path of a video, or None. Files come before folders; of several files, the one whose folders have
        the names of its class and split comes first."""
        paths = self._files.get(name) or self._folders.get(name) or [None]
        if len(paths) == 1:
            return paths[0]
        likely = {_plain(row.label), _plain(row.split)}
        return max(paths, key=lambda path: len(likely.intersection(map(_plain, Path(path).parent.parts))))


class ByPath:
    """Finds videos at the paths of their rows below ``root``, or in the same folder with another ending."""

    def __init__(self, root: str | Path):
        self._tree = Tree(root)
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, name: str, row: Row) -> str | None:
        """Returns the path of a row's video, or None."""
        folder, file = os.path.split(os.path.join(self._tree.root, row.file))
        if folder not in self._folders:
            self._folders[folder] = self._names(folder)
        entry = self._folders[folder].get(file) or self._folders[folder].get(name)
        return os.path.join(folder, entry) if entry else None

    def _names(self, folder: str) -> dict[str, str]:
        """Returns requested name → name in the folder: full names first, then names without ending, then folders."""
        try:
            listing = self._tree.list(folder)
        except DataError:
            return {}
        files = [file for file in listing.files if is_video_name(file) and file not in listing.broken]
        return {**{name: name for name in listing.folders}, **{name_of(f): f for f in files}, **{f: f for f in files}}


def _plain(folder: str) -> str:
    """Returns a folder's name for comparison: in lower case, blanks as underscores, each split in one spelling."""
    folder = clean_label(folder).lower().replace(" ", "_")
    return SPLIT_NAMES.get(folder, folder)
