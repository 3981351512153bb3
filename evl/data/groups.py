"""Groups: videos that share a person, a camera or a recording. No group may be in both training and validation."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evl.errors import DataError, plural
from evl.types import Sample


def with_groups(
    samples: Iterable[Sample], group_by: str | None, path: str | Path, root: str | Path | None = None
) -> tuple[Sample, ...]:
    """Returns the samples with their groups, as ``data.group_by`` defines them.

    Args:
        samples: They must have no groups yet.
        group_by: None changes nothing. ``folder``: the group is the name of the video's folder. Any other text is a
            regular expression, and its one parenthesis matches the group: in the video's name, or, if the expression
            has a slash, in the video's path below the folder of videos.
        path: The folder or list that the samples come from.
        root: The folder of videos; None means ``path``, or the folder of the list.

    Raises DataError if the expression does not match in a video, or if the samples have groups already.
    """
    samples = tuple(samples)
    if group_by is None or not samples:
        return samples
    if any(sample.group is not None for sample in samples):
        raise DataError(f"{path} has a column group, and data.group_by is set too: leave out one of them")
    folder = Path(root or (path if os.path.isdir(path) else Path(path).parent))
    files = dict.fromkeys(sample.path for sample in samples)
    groups = {file: _group_of(Path(file), group_by, folder, path) for file in files}
    return tuple(replace(sample, group=groups[sample.path]) for sample in samples)


def _group_of(file: Path, group_by: str, folder: Path, source: str | Path) -> str:
    if group_by == "folder":
        return file.parent.name
    text = file.name
    if "/" in group_by:
        text = (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
    match = re.search(group_by, text)
    if match is None or not match.group(1):
        raise DataError(
            f"{source}: data.group_by={group_by} finds no group in {text!r}; every video needs one. An expression "
            "without a slash is searched in the video's name, and one with a slash in the path below the data folder"
        )
    return match.group(1)


def refuse_shared_groups(splits: Mapping[str, Sequence[Sample]]) -> None:
    """Raises DataError if a group of ``train`` is in another split too."""
    train_groups = _groups(splits.get("train", ()))
    for name, samples in splits.items():
        if name == "train":
            continue
        for sample in samples:
            if sample.group in train_groups:
                other = next(trained for trained in splits["train"] if trained.group == sample.group)
                raise DataError(
                    f"group {sample.group!r} is in two splits: {other.name} in train, {sample.name} in {name}. Put all "
                    "videos of a group into one split, or remove the groups (column group, data.group_by)"
                )


def describe_groups(trained: Sequence[Sample], judged: Sequence[Sample]) -> str:
    """Returns how many groups the judged samples have, and how many of these were trained on: ``3 groups, none trained
    on``. Returns "" if either list has no groups."""
    train_groups, judged_groups = _groups(trained), _groups(judged)
    if not train_groups or not judged_groups:
        return ""
    count, shared = plural(len(judged_groups), "group"), len(judged_groups & train_groups)
    return f"{count}, {shared} of them trained on" if shared else f"{count}, none trained on"


def describe_split(train: Sequence[Sample], val: Sequence[Sample]) -> str:
    """Returns one line with the numbers of videos, and of groups if there are any."""
    groups = describe_groups(train, val)
    return f"{len(train)} training and {len(val)} validation videos{f' ({groups})' if groups else ''}"


def _groups(samples: Iterable[Sample]) -> set[str]:
    return {sample.group for sample in samples if sample.group is not None}
