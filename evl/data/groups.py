"""Groups of videos that belong together, such as those of one person, camera or recording: validation must not hold
videos of a group that is trained on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evl.errors import DataError
from evl.types import Sample


def with_groups(
    samples: Iterable[Sample], group_by: str | None, folder: str | Path, source: str | Path
) -> tuple[Sample, ...]:
    """The samples, each with its group by ``data.group_by`` (None: as they are).

    ``folder``: the name of the folder a video lies in. A regular expression: what its one group matches in the video's
    name, or, if the expression has a slash in it, in the path below ``folder``.

    Raises DataError, naming ``source`` and the video, where it matches nothing, or where there is a column ``group``.
    """
    samples = tuple(samples)
    if group_by is None or not samples:
        return samples
    if any(sample.group is not None for sample in samples):
        raise DataError(f"{source} has a column group, and data.group_by is set: leave out one of them")
    groups = {path: _group_of(path, group_by, str(folder), source) for path in dict.fromkeys(s.path for s in samples)}
    return tuple(replace(sample, group=groups[sample.path]) for sample in samples)


def _group_of(path: str, group_by: str, folder: str, source: str | Path) -> str:
    if group_by == "folder":
        return os.path.basename(os.path.dirname(path))
    text = os.path.basename(path)
    if "/" in group_by:
        inside = Path(path).is_relative_to(folder)
        text = (Path(path).relative_to(folder) if inside else Path(path)).as_posix()
    found = re.search(group_by, text)
    if found is None or not found.group(1):
        raise DataError(
            f"{source}: data.group_by={group_by} finds no group in {text!r}; every video needs one. The expression is "
            "searched in the video's name, or in its path below the data if there is a slash in the expression"
        )
    return found.group(1)


def refuse_shared_groups(splits: Mapping[str, Sequence[Sample]]) -> None:
    """DataError if a group of ``train`` is in another split, too."""
    trained = _groups(splits.get("train", ()))
    for name, samples in splits.items():
        if name == "train":
            continue
        for sample in samples:
            if sample.group in trained:
                other = next(one for one in splits["train"] if one.group == sample.group)
                raise DataError(
                    f"group {sample.group!r} is in two splits: {other.name} in train, {sample.name} in {name}. Put all "
                    "videos of a group into one split, or leave the groups out (column group, data.group_by)"
                )


def describe_groups(trained: Sequence[Sample], judged: Sequence[Sample]) -> str:
    """Of how many groups the judged samples are, and whether these were trained on; "" where either has no groups."""
    there, here = _groups(trained), _groups(judged)
    if not there or not here:
        return ""
    count = f"{len(here)} group{'s' * (len(here) > 1)}"
    shared = len(here & there)
    return f"{count}, {shared} of them trained on" if shared else f"{count}, none trained on"


def describe_split(train: Sequence[Sample], val: Sequence[Sample]) -> str:
    """Numbers of videos, and of groups where there are some, on one line."""
    groups = describe_groups(train, val)
    return f"{len(train)} training and {len(val)} validation videos{f' ({groups})' if groups else ''}"


def _groups(samples: Iterable[Sample]) -> set[str]:
    return {sample.group for sample in samples if sample.group is not None}
