"""Lists the files below a folder. It lists every folder once, and does not ask for files one by one."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.errors import DataError
from evl.types import Sample
from evl.video.decode.frame_folder import is_image_name
from evl.video.decode.missing import ask_again

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
# folders that systems, network drives, archives and viewers create beside the videos; never entered. In lower case
SYSTEM_FOLDERS = frozenset({
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled",
    "system volume information", "lost+found", "lost.dir", "__macosx", "__pycache__", "thumbnails", "thumbnail",
    "_thumbnails", "_thumbs",
})  # fmt: skip
_PREVIEWS = frozenset({"thumbs", "thumb", "previews", "posters"})  # pictures in these are not frames


@dataclass(frozen=True)
class Listing:
    """The sorted names directly in one folder, without hidden ones.

    ``broken``: links that lead nowhere. ``left_out``: folders of systems (``SYSTEM_FOLDERS``). ``unreadable``: names
    that are not UTF-8, so that no list, report or model could contain them; here with \\xe9 for such a byte.
    ``is_previews``: the folder's name says that it holds previews; never true for the root of a ``Tree``.
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
        """Whether the folder is one video, as a folder of frames: it has a JPEG or PNG, no video file, no previews."""
        if self.is_previews or any(map(is_video_name, self.files)):
            return False
        return any(map(is_image_name, self.files))

    @property
    def not_entered(self) -> tuple[str, ...]:
        """Paths that were left out because of their names; they count as files that are not videos."""
        return tuple(os.path.join(self.path, name) for name in (*self.left_out, *self.unreadable))


class Tree:
    """The folders below ``root``. ``list`` keeps its listings; ``walk`` does not, as there may be millions of names."""

    def __init__(self, root: str | Path):
        self.root = str(root)
        self._listings: dict[str, Listing] = {}

    def list(self, folder: str) -> Listing:
        """Returns the listing of one folder. Raises DataError if the system refuses."""
        if folder not in self._listings:
            self._listings[folder] = _scan(folder, is_root=folder == self.root)
        return self._listings[folder]

    def walk(self, *, stay_out: Collection[str] = ()) -> Iterator[Listing]:
        """Yields the listings of all folders from the root down, in order. Raises DataError if the system refuses.

        It follows links, but enters no folder twice, and no folder whose name is in ``stay_out``.
        """
        waiting, visited = [self.root], set()
        while waiting:
            folder = waiting.pop()
            status = _call(os.stat, folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            listing = self._listings.get(folder) or _scan(folder, is_root=folder == self.root)
            yield listing
            waiting += [os.path.join(folder, name) for name in reversed(listing.folders) if name not in stay_out]


def _printable(name: str) -> str:
    """Returns a file's name as text that can be written; a byte that is not UTF-8 becomes \\xe9 or similar."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def is_video_name(name: str) -> bool:
    """Returns whether a file's name has the ending of a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def still_missing(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Returns ``missing_samples`` after what is missing was looked for again a few times, with growing pauses: a disk
    may be away for a moment."""
    asked = [tuple(samples)]

    def ask() -> tuple[Sample, ...]:
        asked[0] = missing_samples(asked[0])
        return asked[0]

    return ask_again(ask, lambda gone: not gone)


def missing_samples(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Returns the samples whose file or folder does not exist. It lists each of their folders only once."""
    by_folder: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_folder[os.path.dirname(sample.path) or "."].append(sample)
    gone: set[str] = set()
    for folder, inside in by_folder.items():
        names = _existing_names(folder)
        similar = set(map(_folded, names))
        for sample in inside:
            name = os.path.basename(sample.path)
            # some file systems ignore case or the spelling of accents, so a similar name is looked up on its own
            if name not in names and not (_folded(name) in similar and os.path.exists(sample.path)):
                gone.add(sample.path)
    return tuple(sample for sample in samples if sample.path in gone)


def _existing_names(folder: str) -> set[str]:
    """Returns the names in a folder, without links that lead nowhere; none if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_symlink() or os.path.exists(entry.path)}
    except (OSError, ValueError):
        return set()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _scan(folder: str, *, is_root: bool) -> Listing:
    files, folders, broken, left_out, unreadable = [], [], set(), [], []
    with _call(os.scandir, folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if (name := _printable(entry.name)) != entry.name:
                unreadable.append(name)
            elif entry.is_dir():
                (left_out if entry.name.lower() in SYSTEM_FOLDERS else folders).append(entry.name)
            else:
                files.append(entry.name)
                if entry.is_symlink() and not os.path.exists(entry.path):
                    broken.add(entry.name)
    files, folders, left_out, unreadable = (tuple(sorted(names)) for names in (files, folders, left_out, unreadable))
    is_previews = not is_root and os.path.basename(folder).lower() in _PREVIEWS
    return Listing(folder, files, folders, frozenset(broken), left_out, unreadable, is_previews)


def _call(function: Callable, folder: str):
    try:
        return function(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({(error.strerror or str(error)).lower()})") from None
