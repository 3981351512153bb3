"""Lists of labelled videos: CSV or Parquet, the original release's text list, or a folder per class."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evl.errors import ConfigError, DataError
from evl.files import write_atomically
from evl.types import Sample

VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in "mp4 m4v mov mkv webm avi mpg mpeg m2ts ts mts wmv flv 3gp ogv gif y4m".split()  # noqa: SIM905
)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
COLUMNS = ("path", "label", "start_seconds", "end_seconds", "split")


@dataclass(frozen=True)
class Manifest:
    """Samples by split. A list without splits has the single split ``all``. ``ignored``: files that are no videos."""

    source: str
    splits: dict[str, tuple[Sample, ...]]
    class_names: tuple[str, ...]
    ignored: tuple[str, ...] = field(default=())

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(sample for samples in self.splits.values() for sample in samples)


def read_manifest(
    path: str | Path, *, root: str | Path | None = None, class_names: Sequence[str] | None = None
) -> Manifest:
    """Samples and class names of a folder, ``.csv``, ``.parquet``, or text list.

    Relative paths are relative to ``root``, by default the manifest's own folder. ``class_names``: names in order,
    where labels are numbers or must be among them. Without it, class names are the labels, sorted.

    Raises DataError if it is missing, has no usable videos, lacks a column, or names a class that is unknown.
    """
    path = Path(path)
    if path.is_dir():
        splits, ignored = _read_folder(path)
    elif not path.exists():
        raise DataError(f"{path}: no such manifest or folder")
    else:
        rows = _read_rows(path)
        splits, ignored = _rows_to_splits(path, rows, Path(root) if root is not None else path.parent), ()
    samples = [sample for group in splits.values() for sample in group]
    if not samples:
        endings = f" (known endings: {' '.join(sorted(VIDEO_SUFFIXES))})" if path.is_dir() else ""
        raise DataError(f"{path}: no videos found{endings}")
    labels = {sample.label for sample in samples}
    for label in labels:
        if label != label.strip() or len(label.splitlines()) != 1:
            raise DataError(f"{path}: class {label!r} has blanks at an end, or a line break; rename it")
    names = tuple(class_names) if class_names else _sorted_labels(labels)
    # numbers stand for names only in manifests, and only where no name is itself a number
    if class_names and not path.is_dir() and all(map(_is_number, labels)) and not any(map(_is_number, names)):
        if max(map(int, labels)) >= len(names):
            raise DataError(f"{path}: label {max(map(int, labels))}, but there are only {len(names)} class names")
        splits = {
            split: tuple(Sample(s.path, names[int(s.label)], s.start_seconds, s.end_seconds) for s in group)
            for split, group in splits.items()
        }
    elif unknown := sorted(labels - set(names)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: unknown class {', '.join(map(repr, unknown[:3]))}{more}; "
            f"known are {', '.join(map(repr, names[:8]))}{' …' if len(names) > 8 else ''}"
        )
    return Manifest(str(path), splits, names, ignored)


def list_videos(path: str | Path) -> list[Path]:
    """All video files below a folder, by their endings, sorted; hidden files left out."""
    return [file for file in _files(Path(path)) if file.suffix.lower() in VIDEO_SUFFIXES]


def split_samples(
    samples: Sequence[Sample], *, val_fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, val): a seeded part of each class, at least one video where a class has two. Parts of one file
    (by start and end times) stay on one side."""
    files_by_class: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        files_by_class[sample.label][sample.path].append(sample)
    generator = np.random.default_rng(seed)
    val_paths: set[str] = set()
    for label in sorted(files_by_class):
        paths = sorted(files_by_class[label])
        count = round(len(paths) * val_fraction)
        count = min(max(count, 1), len(paths) - 1) if len(paths) > 1 else 0
        val_paths.update(paths[i] for i in generator.permutation(len(paths))[:count])
    train = tuple(sample for sample in samples if sample.path not in val_paths)
    return train, tuple(sample for sample in samples if sample.path in val_paths)


def write_manifest(path: str | Path, samples: Iterable[Sample], splits: Sequence[str] | None = None) -> None:
    """A CSV that ``read_manifest`` reads; paths below its folder are relative to it, others absolute.

    ``splits``: the split of each sample, where there are some.
    """
    folder = Path(path).absolute().parent

    def name(sample: Sample) -> str:
        file = Path(os.path.abspath(sample.path))
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)

    samples = list(samples)
    columns = {"path": [name(s) for s in samples], "label": [s.label or "" for s in samples]}
    for key in ("start_seconds", "end_seconds"):
        times = [getattr(s, key) for s in samples]
        if any(time is not None for time in times):
            columns[key] = ["" if time is None else time for time in times]
    if splits is not None:
        columns["split"] = list(splits)
    with write_atomically(path, text=True) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """One class name a line, in the order of the labels."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read class names ({error.strerror})") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: a class name stands there twice")
    return names


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal()


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    if all(map(_is_number, labels)):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _files(folder: Path) -> list[Path]:
    """All files below a folder, in order; links are followed, but no folder is entered twice."""

    def refuse(error: OSError):
        raise DataError(f"{error.filename}: cannot be read ({(error.strerror or str(error)).lower()})")

    found, visited = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        if real in visited:
            folders[:] = []
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise DataError(f"{parent}: the file name {os.fsencode(name)!r} is not UTF-8; rename it") from None
            if not name.startswith("."):
                found.append(Path(parent) / name)
    return found


def _read_folder(folder: Path) -> tuple[dict[str, tuple[Sample, ...]], tuple[str, ...]]:
    files = _files(folder)
    tops_found = {file.relative_to(folder).parts[0] for file in files if file.parent != folder}
    has_splits = bool(tops_found) and all(name.lower() in SPLIT_NAMES for name in tops_found)
    if has_splits and any(_is_video(file) and len(file.relative_to(folder).parts) == 2 for file in files):
        has_splits = False  # train/a.mp4: "train" is then a class, perhaps of trains
    groups: dict[str, list[Sample]] = defaultdict(list)
    ignored: list[str] = []
    for file in files:
        parts = file.relative_to(folder).parts
        split, inside = (SPLIT_NAMES[parts[0].lower()], parts[1:]) if has_splits and len(parts) > 1 else ("all", parts)
        if not _is_video(file):
            ignored.append(str(file))
        elif len(inside) == 1:
            raise DataError(
                f"{file} lies in no class folder; expected {file.parent}/CLASS/{file.name}, "
                "or a manifest with path,label"
            )
        else:
            groups[split].append(Sample(str(file), inside[0]))
    return {split: tuple(group) for split, group in groups.items()}, tuple(ignored)


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES and not file.is_dir()


def _read_rows(path: Path) -> list[dict]:
    try:
        if path.suffix.lower() == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                _require_columns(path, reader.fieldnames or [])
                return list(reader)
        if path.suffix.lower() == ".parquet":
            import pyarrow
            from pyarrow import parquet

            try:
                table = parquet.read_table(path)
            except pyarrow.ArrowException as error:
                raise DataError(f"{path}: not a readable Parquet file ({error})") from None
            _require_columns(path, table.column_names)
            return table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()
        return _read_text_list(path)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; expected .csv, .parquet, or lines of 'path label'") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_text_list(path: Path) -> list[dict]:
    """The release's list: ``path label`` lines; the label is what follows the last blank, so paths may have some."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=1)
        if len(parts) != 2:
            raise DataError(f"{path}, line {number}: {line.strip()!r} is not 'path label'")
        rows.append({"path": parts[0], "label": parts[1]})
    return rows


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise DataError(
            f"{path}: no column {' or '.join(map(repr, missing))}; the first line must name the columns path,label"
            f"[,start_seconds,end_seconds][,split], but it has {', '.join(columns) or 'nothing'}"
        )


def _rows_to_splits(path: Path, rows: list[dict], root: Path) -> dict[str, tuple[Sample, ...]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for number, row in enumerate(rows, 2):
        name, label = (str(row[key]) if row[key] is not None else "" for key in ("path", "label"))
        label = label.strip()
        if not name.strip() or not label:
            raise DataError(f"{path}, row {number}: {'label' if name.strip() else 'path'} is empty")
        if "\0" in name:
            raise DataError(f"{path}, row {number}: the path {name!r} has a zero byte")
        split = str(row.get("split") or "all").strip().lower()
        if split != "all" and split not in SPLIT_NAMES:
            raise DataError(f"{path}, row {number}: split {split!r}, expected train, val or test")
        start, end = (_seconds(path, number, key, row.get(key)) for key in ("start_seconds", "end_seconds"))
        if end is not None and end <= (start or 0.0):
            raise DataError(f"{path}, row {number}: ends at {end:g} s, before it starts")
        groups[SPLIT_NAMES.get(split, "all")].append(Sample(os.path.normpath(root / name), label, start, end))
    if "all" in groups and len(groups) > 1:
        raise DataError(f"{path}: some rows have a split and some have none")
    return {split: tuple(group) for split, group in groups.items()}


def _seconds(path: Path, number: int, key: str, value) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"{path}, row {number}: {key} is {value!r}, expected seconds from 0")
    return seconds
