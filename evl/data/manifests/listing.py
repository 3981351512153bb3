"""What lies below a folder: every folder is listed once, no file is asked for one by one."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evl.errors import DataError
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name

VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (  # noqa: SIM905
        "mp4 m4v mov qt mkv webm avi divx mpg mpeg mpe mpv m1v m2v vob m2ts ts mts wmv asf flv f4v 3gp 3gpp 3g2 ogv "
        "ogm mxf mj2 dv rm rmvb wtv ivf nut h264 hevc gif y4m"
    ).split()
)
SPLIT_NAMES = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "dev": "val", "devel": "val", "eval": "val", "evaluation": "val",
    "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
# what file systems, NAS, archives and viewers put beside people's files: never entered. Lower case
SYSTEM_FOLDERS = frozenset({
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled",
    "system volume information", "lost+found", "lost.dir", "__macosx", "__pycache__", "thumbnails", "thumbnail",
    "_thumbnails", "_thumbs",
})  # fmt: skip
_PREVIEWS = frozenset({"thumbs", "thumb", "previews", "posters"})  # pictures in them are no frames


@dataclass(frozen=True)
class Listing:
    """What one folder directly holds: names, sorted, hidden ones left out. ``broken``: links that lead nowhere.

    ``left_out``: folders that hold no one's videos (``SYSTEM_FOLDERS``). ``unreadable``: names that are not UTF-8,
    which no list, report or model could hold, with \\xe9 for each such byte. ``is_previews``: a folder of pictures
    beside videos, by its name; never the folder that was asked for.
    """

    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    broken: frozenset[str]
    left_out: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    is_previews: bool = False

    @property
    def is_frames(self) -> bool:
        """Whether this is one video as a folder of pictures: some JPEG or PNG, no video file, and no previews."""
        if self.is_previews or any(map(is_video_name, self.files)):
            return False
        return any(map(is_image_name, self.files))

    @property
    def not_entered(self) -> tuple[str, ...]:
        """Paths of what was left out by its name, to be counted with the files that are no videos."""
        return tuple(os.path.join(self.path, name) for name in (*self.left_out, *self.unreadable))


class Tree:
    """The folders below ``root``. ``list`` keeps what it saw; ``walk`` does not, as there may be millions of names."""

    def __init__(self, root: str | Path):
        self.root = str(root)
        self._kept: dict[str, Listing] = {}

    def list(self, folder: str) -> Listing:
        if folder not in self._kept:
            self._kept[folder] = self._scan(folder)
        return self._kept[folder]

    def _scan(self, folder: str) -> Listing:
        listing = _scan(folder)
        is_previews = folder != self.root and os.path.basename(folder).lower() in _PREVIEWS
        return replace(listing, is_previews=True) if is_previews else listing

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
            listing = self._kept.get(folder) or self._scan(folder)
            yield listing
            waiting += [os.path.join(folder, name) for name in reversed(listing.folders) if name not in stay_out]


def printable(name: str) -> str:
    """A file's name as text that can be written down: bytes that are not UTF-8 become \\xe9 and the like."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


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
    files, folders, broken, left_out, unreadable = [], [], set(), [], []
    with _ask(os.scandir, folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if (name := printable(entry.name)) != entry.name:
                unreadable.append(name)
            elif entry.is_dir():
                (left_out if entry.name.lower() in SYSTEM_FOLDERS else folders).append(entry.name)
            else:
                files.append(entry.name)
                if entry.is_symlink() and not os.path.exists(entry.path):
                    broken.add(entry.name)
    names = (tuple(sorted(some)) for some in (files, folders, left_out, unreadable))
    files, folders, left_out, unreadable = names
    return Listing(folder, files, folders, frozenset(broken), left_out, unreadable)


def _ask(question: Callable, folder: str):
    try:
        return question(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({(error.strerror or str(error)).lower()})") from None
