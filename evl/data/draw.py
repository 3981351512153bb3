"""Draws the validation videos of a list without a validation split, and keeps groups of videos together.

A group is videos that share a person, a camera or a recording. No group may be in both training and validation.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

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


def split_samples(
    samples: Sequence[Sample], *, val_fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Divides ``samples`` into (train, val) by ``seed``; both keep the order of ``samples``.

    The draw takes whole units: a group, or a file where samples have no group. So all parts of one file are on the same
    side, whatever their classes. Each class gives about ``val_fraction`` of its rows, and never all of them. A class
    with two units or more gives at least one, unless some class would then lose more than half of its rows. A class
    that lies in only one unit stays in training.

    If every row has a class and a file of its own, ``val`` is empty. Raises DataError if nothing else can be held out.
    """
    counts = Counter(sample.label for sample in samples)
    if len(counts) == len({unit_of(sample) for sample in samples}) == len(samples):
        return tuple(samples), ()
    held_out = _Draw(samples, counts, val_fraction, seed).run()
    if not held_out:
        raise DataError(_describe_failure(samples))
    train = tuple(sample for sample in samples if unit_of(sample) not in held_out)
    return train, tuple(sample for sample in samples if unit_of(sample) in held_out)


def unit_of(sample: Sample) -> str:
    """Returns the sample's group, or its path if it has no group; a unit is never divided."""
    return sample.path if sample.group is None else sample.group


class _Draw:
    """Chooses the held-out units class by class, starting with the class that has the fewest units.

    Each class goes through its units in a seeded order. Rare classes choose first because frequent classes have more
    units left to choose from (Sechidis et al., On the Stratification of Multi-Label Data, 2011).
    """

    def __init__(self, samples: Sequence[Sample], counts: Counter, val_fraction: float, seed: int):
        self.rows: dict[str, Counter] = defaultdict(Counter)  # unit -> class -> number of rows
        units_of: dict[str, set[str]] = defaultdict(set)
        for sample in samples:
            self.rows[unit_of(sample)][sample.label] += 1
            units_of[sample.label].add(unit_of(sample))
        self.wanted = {y: min(max(round(n * val_fraction), 1), max(n - 1, 1)) for y, n in counts.items()}
        self.counts = counts
        self.taken: Counter = Counter()  # class -> number of rows held out
        self.held_out: set[str] = set()
        generator = np.random.default_rng(seed)
        self.order: dict[str, list[str]] = {}
        for label in sorted(units_of):
            units = sorted(units_of[label])
            self.order[label] = [units[i] for i in generator.permutation(len(units))]

    def run(self) -> set[str]:
        """Returns the units that are held out."""
        self._fill()
        if self._give_back():
            self._fill()
        return self.held_out

    def _fill(self) -> None:
        refused: set[str] = set()  # final: the more is taken, the less another unit improves the draw
        for label in sorted(self.order, key=lambda label: (len(self.order[label]), label)):
            for unit in self.order[label]:
                if self.taken[label] >= self.wanted[label]:
                    break
                if unit in self.held_out or unit in refused:
                    continue
                if self._leaves(unit, 0.0) and self._change(unit) < 0:
                    self._take(unit)
                else:
                    refused.add(unit)
            if not self.taken[label] and (possible := [u for u in self.order[label] if self._leaves(u, 0.5)]):
                self._take(min(possible, key=self._change))

    def _give_back(self) -> bool:
        """Returns units to training where the draw is nearer to the wanted numbers without them. Returns whether there
        were any; there are none if every unit has only one class."""
        before = len(self.held_out)
        for unit in sorted(self.held_out):
            rows = self.rows[unit]
            if any(self.taken[y] <= n for y, n in rows.items()):
                continue  # a class would have nothing left
            self.taken.subtract(rows)
            if self._change(unit) > 0:
                self.held_out.remove(unit)
            else:
                self.taken.update(rows)
        return len(self.held_out) < before

    def _leaves(self, unit: str, share: float) -> bool:
        """Returns whether each class keeps at least ``share`` of its rows, and at least one, if ``unit`` is taken."""
        left = ((y, self.counts[y] - self.taken[y] - n) for y, n in self.rows[unit].items())
        return all(rows >= max(1, share * self.counts[y]) for y, rows in left)

    def _change(self, unit: str) -> float:
        """Returns the change of the distance from the wanted numbers if ``unit`` is taken. The distance is the sum over
        classes of (taken − wanted)² / wanted."""
        return sum(n * (2 * (self.taken[y] - self.wanted[y]) + n) / self.wanted[y] for y, n in self.rows[unit].items())

    def _take(self, unit: str) -> None:
        self.held_out.add(unit)
        self.taken.update(self.rows[unit])


def _describe_failure(samples: Sequence[Sample]) -> str:
    grouped = samples[0].group is not None
    kind = "group" if grouped else "file"
    units: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        units[sample.label].add(unit_of(sample))
    if len(set().union(*units.values())) == 1:
        reason = f"all {len(samples)} rows are of one {kind}, {unit_of(samples[0])}"
    else:
        label = min((y for y in units if len(units[y]) == 1), default=None)
        reason = f"every {kind} holds more than half of a class, or all of it"
        if label is not None:
            reason += f"; {label!r}, for example, is only in {next(iter(units[label]))}"
    remedy = "other groups (data.group_by, or the column group)" if grouped else "more files"
    return (
        f"no validation videos can be drawn: {reason}. A {kind} is never divided. Give {remedy}, or choose the "
        "validation videos yourself: with a column split, or with data.val_path"
    )
