"""Something-Something v2: numbered templates in labels.json; lists in train.json, validation.json and test.json."""

from __future__ import annotations

from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, read_json, read_json_rows, read_lines
from evl.data.manifests.labels import clean_class_names
from evl.data.manifests.listing import SPLIT_NAMES
from evl.errors import DataError
from evl.runtime.text import clean_label

LOOKED_FOR = "labels.json with train.json or validation.json beside it (or something-something-v2-labels.json …)"
NUM_SPLITS = 1
_PREFIX = "something-something-v2-"
_LISTS = ("train", "validation", "test")


def find(files: list[Path]) -> list[Path]:
    """Returns labels.json, and the lists beside it. Files without the prefix only count if labels.json numbers the
    templates, because other data sets have a labels.json too."""
    for prefix in (_PREFIX, ""):
        for labels in files:
            if labels.name.lower() != f"{prefix}labels.json":
                continue
            lists = [labels.with_name(f"{prefix}{name}.json") for name in _LISTS]
            lists = [file for file in lists if file in files]
            if lists and (prefix or _is_table(labels)):
                answers = [
                    file for file in files if file.name.lower() in ("test-answers.csv", f"{_PREFIX}test-answers.csv")
                ]
                return [labels, *lists, *answers]
    return []


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads the lists. The class names are the templates of labels.json without brackets, in order of their numbers."""
    labels, *lists = found.files
    names = _class_names(labels)
    known = set(names)
    answers: dict[str, str] = {}
    for file in lists:
        if file.suffix.lower() == ".csv":
            answers = dict(_answer(file, line) for line in read_lines(file))
    rows = []
    for file in lists:
        if file.suffix.lower() != ".json":
            continue
        split = SPLIT_NAMES[file.stem.lower().removeprefix(_PREFIX)]
        for item in read_json_rows(file, "id"):
            name = str(item["id"])
            label = _plain(str(item["template"])) if item.get("template") else answers.get(name)
            if label is None and split != "test":
                raise DataError(f"{file}: the video {name} has no template")
            if label is not None and label not in known:
                raise DataError(f"{file}: the video {name} has the template {label!r}, but {labels} does not list it")
            rows.append(Row(split, label, f"{name}.webm"))
    return Annotation(tuple(rows), names)


def _class_names(file: Path) -> tuple[str, ...]:
    table = read_json(file)
    try:
        numbers = {_plain(template): int(number) for template, number in table.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{file}: expected an object with a number for each template") from None
    if sorted(numbers.values()) != list(range(len(table))):
        raise DataError(f"{file}: expected each number from 0 to {len(table) - 1} once")
    return clean_class_names(sorted(numbers, key=numbers.__getitem__), file)


def _is_table(file: Path) -> bool:
    try:
        return bool(_class_names(file))
    except DataError:
        return False


def _plain(template: str) -> str:
    return clean_label(template.replace("[", "").replace("]", ""))


def _answer(file: Path, line: str) -> tuple[str, str]:
    name, semicolon, label = line.partition(";")
    if not semicolon:
        raise DataError(f"{file}: {line!r}, expected 'id;label'")
    return name.strip(), _plain(label)
