"""Notices about a list of videos: lines on what is allowed but surprising, each with an example and what to do.

``evl check`` prints them. A run logs them when it reads its videos.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evl.data.draw import unit_of
from evl.data.manifests.listing import is_video_name
from evl.errors import plural
from evl.types import Sample

if TYPE_CHECKING:
    from evl.data.manifests import Manifest

_MAX_SHOWN = 4  # labels of one file
_MAX_SHARE_ERROR = 0.05  # a notice appears if the validation share is further than this from the requested one


def manifest_notices(manifest: Manifest) -> tuple[str, ...]:
    """Returns all notices that can be found without opening a video."""
    return (*manifest.notices, *twin_classes(manifest.class_names), *mixed_kinds(manifest.samples))


def twin_classes(class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns a notice for each group of classes whose names differ only in case, blanks, underscores, hyphens or the
    width of letters."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        key = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
        groups[key or name].append(name)
    return tuple(
        f"the classes {' and '.join(map(repr, group))} differ only in case, blanks, underscores or hyphens; if they "
        "are one class, give all its videos the same label"
        for group in groups.values()
        if len(group) > 1
    )


def mixed_kinds(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Returns a notice if a class has both video files and folders of frames; a folder of frames has no frame rate."""
    files = Counter(sample.label for sample in samples if is_video_name(sample.path))
    others: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if not is_video_name(sample.path):
            others[sample.label].append(sample.path)
    mixed = [label for label, paths in others.items() if files[label] and os.path.isdir(paths[0])]
    if not mixed:
        return ()
    label = min(mixed)
    folders = plural(len(others[label]), "folder")
    more = f" (and {len(mixed) - 1} more such classes)" if len(mixed) > 1 else ""
    return (
        f"the class {label!r} has {plural(files[label], 'video file')} and {folders} of frames, such as "
        f"{others[label][0]}{more}. Folders of frames are read at 25 frames per second; if a folder holds thumbnails, "
        "move it out of the class folder",
    )


def several_labels(samples: Sequence[Sample], file_of: Callable[[str], str] = lambda path: path) -> tuple[str, ...]:
    """Returns a notice if videos are listed with several labels for the same time.

    Parts of one file may have different labels if their times do not overlap. ``file_of``: path -> a name that all
    paths of the same file share.
    """
    rows: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.label is not None:
            rows[file_of(sample.path)].append(sample)
    overlaps = [overlap for same_file in rows.values() if (overlap := _overlapping(same_file))]
    if not overlaps:
        return ()
    example = ", ".join(f"{sample.name} ({sample.label!r})" for sample in overlaps[0][:_MAX_SHOWN])
    more = " …" * (len(overlaps[0]) > _MAX_SHOWN)
    count = "1 video is" if len(overlaps) == 1 else f"{len(overlaps)} videos are"
    return (
        f"{count} listed under several labels for the same time: {'such as ' * (len(overlaps) > 1)}{example}{more}. "
        "A classifier learns one label per video: keep one of them, or give each label times that do not overlap",
    )


def _overlapping(rows: Sequence[Sample]) -> list[Sample]:
    """Returns those rows of one file that share time with a row of another label, one row per label."""
    latest: dict[str, Sample] = {}  # label -> of its rows that have not ended yet, the one that ends last
    overlapping: dict[str, Sample] = {}
    for row in sorted(rows, key=lambda row: row.start_seconds or 0.0):
        latest = {label: other for label, other in latest.items() if _end(other) > (row.start_seconds or 0.0)}
        others = [other for label, other in latest.items() if label != row.label]
        for sample in (*others, row) if others else ():
            overlapping.setdefault(sample.label, sample)
        if row.label not in latest or _end(row) > _end(latest[row.label]):
            latest[row.label] = row
    return list(overlapping.values())


def _end(row: Sample) -> float:
    return float("inf") if row.end_seconds is None else row.end_seconds


def split_notices(train: Sequence[Sample], val: Sequence[Sample], val_fraction: float | None = None) -> tuple[str, ...]:
    """Returns notices about a split: files on both sides, classes without validation videos, groups on one side only.

    ``val_fraction``: the requested share, if the split was drawn; a notice appears if the real share is far from it.
    """
    notices = []
    if shared := {sample.path for sample in train} & {sample.path for sample in val}:
        notices.append(
            f"{len(shared)} {'files are' if len(shared) > 1 else 'file is'} in both training and validation, such as "
            f"{min(shared)}, so the validation score is not of unseen videos. Put all rows of a file into one split"
        )
    if train and val and (train[0].group is None) != (val[0].group is None):
        with_groups, without = ("training", "validation") if val[0].group is None else ("validation", "training")
        notices.append(
            f"the {with_groups} videos have groups, but the {without} videos have none: the same people, cameras or "
            "recordings may be in both. Give both lists a column group, or set data.group_by"
        )
    judged, counts = {sample.label for sample in val}, Counter(sample.label for sample in train)
    if val and (unjudged := sorted(set(counts) - judged)):
        num_classes = len(judged | set(counts))
        subject = "1 class has" if len(unjudged) == 1 else f"{len(unjudged)} of {num_classes} classes have"
        example = f"{unjudged[0]!r} ({plural(counts[unjudged[0]], 'training video')})"
        why = "" if val_fraction is None else ". Such a class cannot be divided: parts of a file or group stay together"
        notices.append(f"{subject} no validation videos, and so no score: {example}{why}")
    total = len(train) + len(val)
    units = len({unit_of(sample) for sample in (*train, *val)})
    if val_fraction is not None and val and units < total and abs(len(val) / total - val_fraction) > _MAX_SHARE_ERROR:
        notices.append(
            f"validation has {100 * len(val) / total:.0f} % of the {total} videos, not {100 * val_fraction:.0f} %: "
            f"these are {units} files or groups, and none is divided. To choose the validation videos yourself, add a "
            "column split"
        )
    return tuple(notices)
