"""Where the videos of an annotation lie. Prepared copies have other endings, and may be folders of frames."""

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
    """Videos anywhere below ``root`` whose name, without ending, is one of ``names``.

    Every folder is listed once. Folders that have one of the names are not entered: Something-Something v1 has 108,499
    of them, with some forty pictures each.
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
        """The path, a file rather than a folder; of several the one in folders of its class and split, else the
        first."""
        found = self._files.get(name) or self._folders.get(name) or [None]
        if len(found) == 1:
            return found[0]
        likely = {_plain(row.label), _plain(row.split)}
        return max(found, key=lambda path: len(likely.intersection(map(_plain, Path(path).parent.parts))))


class ByPath:
    """Videos at the paths that their rows give, below ``root``, or beside these with another ending."""

    def __init__(self, root: str | Path):
        self._tree = Tree(root)
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, name: str, row: Row) -> str | None:
        folder, file = os.path.split(os.path.join(self._tree.root, row.file))
        if folder not in self._folders:
            self._folders[folder] = self._names(folder)
        found = self._folders[folder].get(file) or self._folders[folder].get(name)
        return os.path.join(folder, found) if found else None

    def _names(self, folder: str) -> dict[str, str]:
        """What is asked for → what is there: full names first, then names without ending, then folders."""
        try:
            listing = self._tree.list(folder)
        except DataError:
            return {}
        files = [file for file in listing.files if is_video_name(file) and file not in listing.broken]
        return {**{name: name for name in listing.folders}, **{name_of(f): f for f in files}, **{f: f for f in files}}


def _plain(folder: str) -> str:
    """A folder's name as it is compared: blanks as underscores, one spelling of each split."""
    folder = clean_label(folder).lower().replace(" ", "_")
    return SPLIT_NAMES.get(folder, folder)
