"""Diving48: a vocabulary of dives, and lists with ``vid_name`` and a class number ``label``."""

from __future__ import annotations

import re
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, class_name, read_json, read_json_rows
from evl.data.manifests.labels import clean_class_names
from evl.errors import DataError

LOOKED_FOR = "Diving48_vocab.json with Diving48_V2_train.json and Diving48_V2_test.json beside it"
NUM_SPLITS = 1
_NAME = re.compile(r"diving48_(v2_)?(train|test)\.json", re.IGNORECASE)


def find(files: list[Path]) -> list[Path]:
    """Returns the vocabulary, then the lists beside it: those of version 2, or else those of version 1."""
    for vocabulary in files:
        if vocabulary.name.lower() != "diving48_vocab.json":
            continue
        lists = [(match, file) for file in files
                 if file.parent == vocabulary.parent and (match := _NAME.fullmatch(file.name))]  # fmt: skip
        newest = any(match[1] for match, _ in lists)
        if lists:
            return [vocabulary, *(file for match, file in lists if bool(match[1]) == newest)]
    return []


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads the lists. A class name joins the parts of a dive, as in ``Back, 15som, 05Twis, FREE``; classes keep the
    order of the vocabulary. start_frame and end_frame are not read, because the published videos are already cut."""
    vocabulary, *lists = found.files
    content = read_json(vocabulary)
    if not isinstance(content, list) or not all(isinstance(dive, list | str) for dive in content):
        raise DataError(f"{vocabulary}: expected a list of dives, each a list of its parts")
    dives = [[dive] if isinstance(dive, str) else [str(part) for part in dive if part] for dive in content]
    names = clean_class_names([", ".join(parts) for parts in dives], vocabulary)
    rows = []
    for file in lists:
        split = _NAME.fullmatch(file.name)[2].lower()
        for item in read_json_rows(file, "vid_name", "label"):
            rows.append(Row(split, class_name(file, names, item["label"]), f"{item['vid_name']}.mp4"))
    return Annotation(tuple(rows), names)
