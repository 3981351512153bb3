"""Draws the validation videos of a list that has no validation split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from evl.errors import DataError
from evl.types import Sample


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
