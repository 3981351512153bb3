"""Decides which folders are splits, by their names and their content."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from evl.data.manifests.listing import SPLIT_NAMES
from evl.errors import DataError

# words without a meaning of their own beside the name of a split: videos_train, val-set, split_test
_NEUTRAL = frozenset(
    (  # noqa: SIM905
        "set sets split splits subset subsets video videos clip clips data dataset datasets file files image images "
        "img imgs frame frames sample samples folder folders part parts"
    ).split()
)
_JOINED = {split + word: split for split in SPLIT_NAMES for word in _NEUTRAL}  # trainset, valdata
_FOLDS = frozenset({"fold", "folds", "split", "splits", "partition", "partitions"})
_NO_CLASSES = frozenset({"unlabeled", "unlabelled", "unsup", "unsupervised", "extra", "extras"})
# words with more than one meaning: "dev" and "eval" together often mean validation and test
_UNSURE = frozenset({"trainval", "dev", "devel", "eval", "evaluation", "holdout"})


@dataclass(frozen=True)
class Reading:
    """The split in a folder's name: the ``word`` that names it, and the ``rest`` of the words that mean something."""

    split: str
    word: str
    rest: tuple[str, ...]


def read_split(name: str) -> Reading | None:
    """Returns the split in a folder's name; None if the name contains no such word, or two different ones.

    ``val-set``, ``01_train`` and ``TestVideos`` have no rest; ``ucf_train`` has the rest ``ucf``.
    """
    words = [_JOINED.get(word, word) for word in _words(name)]
    split_words = {word for word in words if word in SPLIT_NAMES}
    if len(split_words) != 1:
        return None
    (word,) = split_words
    rest = tuple(other for other in words if other != word and other not in _NEUTRAL and not other.isdigit())
    return Reading(SPLIT_NAMES[word], word, rest)


def split_meanings(words: Collection[str]) -> dict[str, str]:
    """Returns word → train, val or test. Raises DataError if it is not clear whether two words mean the same split, as
    with ``dev`` and ``eval``."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for word in sorted(words):
        by_split[SPLIT_NAMES[word]].append(word)
    if "trainval" in words and "val" in by_split:
        by_split["train"] += by_split["val"]
    for split, group in by_split.items():
        if len(group) > 1 and _UNSURE.intersection(group):
            raise DataError(f"{' and '.join(map(repr, group))} may both mean the split {split!r}")
    return {word: SPLIT_NAMES[word] for word in words}


def folder_splits(holds_files: Mapping[str, bool], holds_frames: Collection[str] = ()) -> dict[str, str] | None:
    """Returns folder → train, val or test, if the folders are splits; None if they are classes.

    ``holds_files``: name of each folder with videos below it → whether it directly contains video files. A class folder
    does, and a split folder does not. ``holds_frames``: the folders that directly contain folders of frames. Raises
    DataError if the folders may be either.
    """
    readings = {name: reading for name in holds_files if (reading := read_split(name)) is not None}
    splits = {name for name, reading in readings.items() if not reading.rest} | _same_rest(readings)
    others = [name for name in holds_files if name not in splits]
    if not splits:
        _refuse_folds(holds_files)
        if len(readings) == len(holds_files) and len({reading.split for reading in readings.values()}) > 1:
            raise DataError(f"{_join(readings)} contain the name of a split, but may also be classes")
        return None
    direct = [name for name in splits if holds_files[name]]
    if others:
        one_class = len(splits) == 1 and (direct or splits <= set(holds_frames))
        if one_class and not any(_NO_CLASSES.intersection(_words(name)) for name in others):
            return None  # one class among others, perhaps the vehicle "train"
        look = "looks like a split" if len(splits) == 1 else "look like splits"
        raise DataError(f"{_join(splits)} {look}, but {_join(others)} {'does' if len(others) == 1 else 'do'} not")
    if direct and len(splits) == 1:
        return None
    if direct:
        raise DataError(
            f"{_join(splits)} look like splits, but there are videos directly in {_join(direct)}, in no class folder"
        )
    meaning = split_meanings({readings[name].word for name in splits})
    return {name: meaning[readings[name].word] for name in holds_files}


def inner_splits(folders: Collection[str]) -> list[str]:
    """Returns the folders that look like splits, if they name at least two different splits; else none."""
    readings = {name: reading for name in folders if (reading := read_split(name)) is not None and not reading.rest}
    return sorted(readings) if len({reading.split for reading in readings.values()}) > 1 else []


def _same_rest(readings: Mapping[str, Reading]) -> set[str]:
    """Returns names such as ucf_train and ucf_val, which have different splits but otherwise the same words."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, reading in readings.items():
        groups[reading.rest].append(name)
    return {name for group in groups.values() if len({readings[n].split for n in group}) > 1 for name in group}


def _refuse_folds(folders: Collection[str]) -> None:
    def is_fold(name: str) -> bool:
        words = _words(name)
        rest = [word for word in words if not word.isdigit()]
        return bool(_FOLDS.intersection(rest)) and len(rest) < len(words) and set(rest) <= _NEUTRAL | _FOLDS

    if len(folders) > 1 and all(map(is_fold, folders)):
        raise DataError(f"{_join(folders)} look like the parts of a cross-validation, not like classes")


def _words(name: str) -> list[str]:
    """Returns the words and numbers of a name in lower case: TrainSet_01 → train, set, 01."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    name = re.sub(r"h[oe]ld[\W_]*out", " holdout ", name)
    name = re.sub(r"(?<![^\W_])train[\W_]*(and[\W_]*)?val(?![^\W\d_])", " trainval ", name)
    return re.findall(r"[^\W\d_]+|[0-9]+", name)


def _join(names: Collection[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    shown = [repr(name) for name in names[:4]]
    if more or len(shown) < 2:
        return ", ".join(shown) + more
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
