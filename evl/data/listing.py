"""What lies below a folder: every folder is listed once, no file is asked for one by one."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.errors import DataError
from evl.types import Sample
from evl.video.frame_folder import is_image_name

VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in "mp4 m4v mov mkv webm avi mpg mpeg m2ts ts mts wmv flv 3gp ogv gif y4m".split()  # noqa: SIM905
)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """What one folder directly holds: names, sorted, hidden ones left out. ``broken``: links that lead nowhere."""

    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    broken: frozenset[str]

    @property
    def is_frames(self) -> bool:
        """Whether this is one video as a folder of pictures: some JPEG or PNG, and no video file."""
        return any(map(is_image_name, self.files)) and not any(map(is_video_name, self.files))


class Tree:
    """The folders below ``root``. ``list`` keeps what it saw; ``walk`` does not, as there may be millions of names."""

    def __init__(self, root: str | Path):
        self.root = str(root)
        self._kept: dict[str, Listing] = {}

    def list(self, folder: str) -> Listing:
        if folder not in self._kept:
            self._kept[folder] = _scan(folder)
        return self._kept[folder]

    def walk(self, *, stay_out: Collection[str] = ()) -> Iterator[Listing]:
        """All folders from the root down, in order; links are followed, but no folder is entered twice, and none
        whose name is in ``stay_out``."""
        waiting, visited = [self.root], set()
        while waiting:
            folder = waiting.pop()
            status = _ask(os.stat, folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            listing = self._kept.get(folder) or _scan(folder)
            yield listing
            waiting += [os.path.join(folder, name) for name in reversed(listing.folders) if name not in stay_out]


def is_video_name(name: str) -> bool:
    """Whether a file's name has a video's ending."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def missing_samples(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Those whose file or folder is not there. Each folder that should hold some is listed once."""
    by_folder: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_folder[os.path.dirname(sample.path) or "."].append(sample)
    gone: set[str] = set()
    for folder, inside in by_folder.items():
        names, alike = _present(folder)
        for sample in inside:
            name = os.path.basename(sample.path)
            # some file systems take other spellings of a name (case, accents) for the same: only those are asked
            if name not in names and not (_alike(name) in alike and os.path.exists(sample.path)):
                gone.add(sample.path)
    return tuple(sample for sample in samples if sample.path in gone)


def _present(folder: str) -> tuple[set[str], set[str]]:
    """(names in a folder, the same without case and accents' spelling); none for a folder that is not there."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if not entry.is_symlink() or os.path.exists(entry.path)}
    except (OSError, ValueError):
        return set(), set()
    return names, set(map(_alike, names))


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _scan(folder: str) -> Listing:
    files, folders, broken = [], [], set()
    with _ask(os.scandir, folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                name = os.fsencode(entry.name)
                raise DataError(f"{folder}: the file name {name!r} is not UTF-8; rename it") from None
            if entry.is_dir():
                folders.append(entry.name)
                continue
            files.append(entry.name)
            if entry.is_symlink() and not os.path.exists(entry.path):
                broken.add(entry.name)
    return Listing(folder, tuple(sorted(files)), tuple(sorted(folders)), frozenset(broken))


def _ask(question: Callable, folder: str):
    try:
        return question(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({(error.strerror or str(error)).lower()})") from None
