"""What is odd about a collection, although it can be used: a line each, with a file, class or row, and what to do.

``evl check`` prints them, and whatever reads a collection for training logs them.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evl.data.draw import unit_of
from evl.data.manifests.labels import near_twins
from evl.data.manifests.listing import is_video_name
from evl.types import Sample

if TYPE_CHECKING:
    from evl.data.manifests.manifest import Manifest

_MOST_SHOWN = 4  # labels of one file
_MUCH = 0.05  # how far the share of validation may be from what was asked for without a word


def manifest_notices(manifest: Manifest) -> tuple[str, ...]:
    """All that can be said without opening a video."""
    return (*manifest.notices, *twin_classes(manifest.class_names), *mixed_kinds(manifest.samples))


def twin_classes(class_names: Sequence[str]) -> tuple[str, ...]:
    """A line on each group of classes whose names differ in case, blanks, underscores or hyphens only."""
    return tuple(
        f"the classes {' and '.join(map(repr, group))} differ in case, blanks, underscores or hyphens only; if they "
        "are one class, write it in one way"
        for group in near_twins(class_names)
    )


def mixed_kinds(samples: Sequence[Sample]) -> tuple[str, ...]:
    """A line if a class has video files and folders of frames: these have no rate of their own, and other pictures."""
    files: dict[str, int] = defaultdict(int)
    others: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if is_video_name(sample.path):
            files[sample.label] += 1
        else:
            others[sample.label].append(sample.path)
    mixed = [label for label, paths in others.items() if files[label] and os.path.isdir(paths[0])]
    if not mixed:
        return ()
    label = min(mixed)
    number = len(others[label])
    folders = f"{number} {'folder' if number == 1 else 'folders'} of frames, such as {others[label][0]}"
    more = f" (and {len(mixed) - 1} more such classes)" if len(mixed) > 1 else ""
    return (
        f"the class {label!r} has {files[label]} video {'file' if files[label] == 1 else 'files'} and {folders}{more}; "
        "frames count as 25 per second. Folders of thumbnails and the like belong elsewhere",
    )


def several_labels(samples: Sequence[Sample], file_of: Callable[[str], str] = lambda path: path) -> tuple[str, ...]:
    """A line if videos are listed under several labels for the same time, else nothing. Parts of a file at times that
    do not overlap may have labels of their own. ``file_of``: path -> a name that all paths of the same file share."""
    rows: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.label is not None:
            rows[file_of(sample.path)].append(sample)
    found = [one for own in rows.values() if len(own) > 1 and (one := _overlapping(own))]
    if not found:
        return ()
    example = ", ".join(f"{sample.name} ({sample.label!r})" for sample in found[0][:_MOST_SHOWN])
    more = " …" * (len(found[0]) > _MOST_SHOWN)
    count = "1 video is" if len(found) == 1 else f"{len(found)} videos are"
    return (
        f"{count} listed under several labels for the same time: {'such as ' * (len(found) > 1)}{example}{more}. "
        "A classifier learns one label per video: keep one of them, or give each label times that do not overlap",
    )


def _overlapping(rows: Sequence[Sample]) -> list[Sample]:
    """Of rows of one file those that share time with a row of another label: one row per label."""
    latest: dict[str, Sample] = {}  # label -> the row of it that ends last, of those that have not ended yet
    found: dict[str, Sample] = {}
    for row in sorted(rows, key=lambda row: row.start_seconds or 0.0):
        latest = {label: one for label, one in latest.items() if _end(one) > (row.start_seconds or 0.0)}
        others = [one for label, one in latest.items() if label != row.label]
        for one in (*others, row) if others else ():
            found.setdefault(one.label, one)
        if row.label not in latest or _end(row) > _end(latest[row.label]):
            latest[row.label] = row
    return list(found.values())


def _end(row: Sample) -> float:
    return float("inf") if row.end_seconds is None else row.end_seconds


def split_notices(train: Sequence[Sample], val: Sequence[Sample], val_fraction: float | None = None) -> tuple[str, ...]:
    """Lines about a split: files on both sides, classes without validation, and, where ``val_fraction`` was drawn, a
    share that is not near it."""
    notices = []
    if shared := {sample.path for sample in train} & {sample.path for sample in val}:
        notices.append(
            f"{len(shared)} {'files are' if len(shared) > 1 else 'file is'} in training and in validation, such as "
            f"{min(shared)}: the validation score is no score of unseen videos. Put all rows of a file into one split"
        )
    if train and val and (train[0].group is None) != (val[0].group is None):
        one, other = ("training", "validation") if val[0].group is None else ("validation", "training")
        notices.append(
            f"the {one} videos have groups, those of {other} have none: nothing says whether both are of other people, "
            "cameras or recordings. Give both lists a column group, or set data.group_by"
        )
    judged, counts = {sample.label for sample in val}, Counter(sample.label for sample in train)
    if val and (alone := sorted(set(counts) - judged)):
        are = "1 class has" if len(alone) == 1 else f"{len(alone)} of {len(counts | Counter(judged))} classes have"
        example = f"{alone[0]!r} ({counts[alone[0]]} training {'video' if counts[alone[0]] == 1 else 'videos'})"
        why = "" if val_fraction is None else ", as they cannot be divided: parts of a file or group stay together"
        notices.append(f"{are} no validation videos, so that no score tells of it: {example}{why}")
    total = len(train) + len(val)
    units = len({unit_of(sample) for sample in (*train, *val)})
    if val_fraction is not None and val and units < total and abs(len(val) / total - val_fraction) > _MUCH:
        notices.append(
            f"validation has {100 * len(val) / total:.0f} % of the {total} videos, not {100 * val_fraction:.0f} %: "
            f"they are of {units} files or groups, which are not divided. A column split says which videos validate"
        )
    return tuple(notices)
