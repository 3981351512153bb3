"""Which part of a list of videos is held out for validation, where the list does not say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from evl.errors import DataError
from evl.types import Sample


def split_samples(
    samples: Sequence[Sample], *, val_fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, val): a seeded part of every class, in the order of ``samples``.

    What is drawn are whole units: groups where samples have one, else files. So all parts of a file, of whatever class,
    are on one side. Every class gives about ``val_fraction`` of its rows, never all of them, and at least one unit if
    it has two or more and no class would have to give more than half for it. A class in one unit only is trained on.

    Raises DataError where nothing can be held out, unless every row is a class and a file of its own.
    """
    counts = Counter(sample.label for sample in samples)
    if len(counts) == len({unit_of(sample) for sample in samples}) == len(samples):
        return tuple(samples), ()
    held_out = _Draw(samples, counts, val_fraction, seed).run()
    if not held_out:
        raise DataError(_why_none(samples))
    train = tuple(sample for sample in samples if unit_of(sample) not in held_out)
    return train, tuple(sample for sample in samples if unit_of(sample) in held_out)


def unit_of(sample: Sample) -> str:
    """What stays on one side with this sample: its group, or its file where it has none."""
    return sample.path if sample.group is None else sample.group


class _Draw:
    """Classes take their units in a seeded order, those with the fewest units first (Sechidis et al., On the
    Stratification of Multi-Label Data, 2011): common classes then fill up with what is left to be chosen."""

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
        """The units that are held out."""
        self._fill()
        if self._give_back():
            self._fill()
        return self.held_out

    def _fill(self) -> None:
        refused: set[str] = set()  # for good: as more is taken, a unit can only become less welcome
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
        """Units without which the rest is nearer to what is wanted go back; whether there were some. Where each unit is
        of one class only, none is."""
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
        """Whether training would keep a row of each class, and at least a share of it, if the unit were taken."""
        left = ((y, self.counts[y] - self.taken[y] - n) for y, n in self.rows[unit].items())
        return all(rows >= max(1, share * self.counts[y]) for y, rows in left)

    def _change(self, unit: str) -> float:
        """By how much the distance from the wanted numbers, the sum over classes of (taken − wanted)² / wanted, would
        change if the unit were taken."""
        return sum(n * (2 * (self.taken[y] - self.wanted[y]) + n) / self.wanted[y] for y, n in self.rows[unit].items())

    def _take(self, unit: str) -> None:
        self.held_out.add(unit)
        self.taken.update(self.rows[unit])


def _why_none(samples: Sequence[Sample]) -> str:
    grouped = samples[0].group is not None
    units: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        units[sample.label].add(unit_of(sample))
    every, kind = {unit for own in units.values() for unit in own}, "group" if grouped else "file"
    if len(every) == 1:
        reason = f"all {len(samples)} rows are of one {kind}, {next(iter(every))}"
    else:
        label = min((y for y in units if len(units[y]) == 1), default=None)
        reason = f"every {kind} holds more than half of a class, or all of it"
        if label is not None:
            reason += f", such as {label!r}, which is in {next(iter(units[label]))} only"
    way = "other groups (data.group_by, or the column group)" if grouped else "more files"
    return (
        f"no validation videos can be drawn: {reason}, and a {kind} is not divided. Give {way}, or say which videos "
        "validate: by a column split, or by data.val_path"
    )
