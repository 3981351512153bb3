"""THUMOS-14 (and MultiTHUMOS): a text file per class, with lines of ``video start end``."""

from __future__ import annotations

import re
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout
from evl.data.layouts.segments.base import SegmentReader, Segments, start_of
from evl.data.manifests.text_table import read_text
from evl.errors import DataError

LOOKED_FOR = "CLASS_val.txt or CLASS_test.txt with lines of 'video start end', such as BaseballPitch_val.txt"
NUM_SPLITS = 1
SUFFIXES = ()  # one class alone is no data set
_NAME = re.compile(r"(?P<label>.+?)(_(?P<split>val|test))?", re.IGNORECASE)
_LINE = re.compile(r"\s*(?P<video>\S+)\s+(?P<start>\S+)\s+(?P<end>\S+)\s*")
_FIRST = re.compile(r"\s*video_(validation|test|train)_\d+\s+[\d.]+\s+[\d.]+\s*")
# the data set has no untrimmed training videos: detectors train on those of the validation set
_SPLITS = {"val": "train", "validation": "train", "train": "train", "test": "test"}
_AMBIGUOUS = "Ambiguous"


def find(files: list[Path]) -> list[Path]:
    """Returns the lists of all classes."""
    return [file for file in files if file.suffix.lower() == ".txt" and _is_ours(start_of(file))]


def _is_ours(start: str) -> bool:
    first = next((line for line in start.splitlines() if line.strip()), "")
    return _FIRST.fullmatch(first) is not None


def read(found: FoundLayout, split_number: int) -> Annotation | Segments:
    """Reads all lists. The validation videos are the split ``train``; segments of the class Ambiguous are left out."""
    reader = SegmentReader(found.folder)
    for file in found.files:
        name = _NAME.fullmatch(file.stem)
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{file.name}, line {number}"
            if (row := _LINE.fullmatch(line)) is None:
                reader.reject(where, f"{line!r:.80}, expected 'video start end'")
            elif name["label"] == _AMBIGUOUS:
                reader.leave_out("ambiguous segments")
            else:
                split = _split(where, name["split"], row["video"])
                reader.add(where, row["video"], name["label"], row["start"], row["end"], split=split)
    return reader.finish()


def _split(where: str, of_list: str | None, video: str) -> str:
    word = of_list or next((word for word in re.split(r"[_\W]+", video) if word.lower() in _SPLITS), None)
    if word is None:
        raise DataError(f"{where}: neither the list nor the video {video!r:.60} names a split; expected _val or _test")
    return _SPLITS[word.lower()]
