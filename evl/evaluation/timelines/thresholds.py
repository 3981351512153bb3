"""The thresholds of each class, chosen on validation videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from evl.errors import DataError
from evl.evaluation.timelines.judged import SHARES, of_label
from evl.evaluation.timelines.matching import counts_of_track, f1
from evl.evaluation.timelines.tracks import joined
from evl.evaluation.timelines.truth import check_labels, true_segments
from evl.inference.segments import OFF_SHARE, SegmentRules
from evl.inference.timeline import Timeline
from evl.types import BACKGROUND, Sample

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # 0.05 to 0.95


class Chosen(NamedTuple):
    """``rules`` with a threshold for each class. ``scores``: class → the F1 it was chosen by. ``unchosen``: classes
    without segments in these videos, which keep the threshold that they had."""

    rules: SegmentRules
    scores: dict[str, float]
    unchosen: tuple[str, ...]


def choose_thresholds(lines: Sequence[Timeline], rows: Mapping[str, Sequence[Sample]], rules: SegmentRules) -> Chosen:
    """For each class, the ``on`` with the best F1 of its segments: the mean of F1@10, F1@25 and F1@50.

    It is one of 0.05, 0.1 … 0.95; of equally good neighbors the one in the middle. ``off`` is 0.6 · ``on``. The other
    rules stay. ``lines`` and ``rows``: as for ``evaluate_lines``. Raises DataError where there is nothing to choose by.
    """
    if not lines:
        raise DataError("not one validation video could be read, so no thresholds can be chosen")
    names = lines[0].class_names
    check_labels([row for group in rows.values() for row in group], names)
    truths = [joined(true_segments(line, group)) for line, group in zip(lines, rows.values(), strict=True)]
    counts = np.zeros((len(LEVELS), len(SHARES), len(names), 3), np.int64)
    for place, level in enumerate(LEVELS):
        tried = replace(rules, on=level, off=None)
        for line, truth in zip(lines, truths, strict=True):
            found = line.with_rules(tried).segments
            for y, name in enumerate(names):
                pair = of_label(found, name), of_label(truth, name)
                for row, share in enumerate(SHARES if any(pair) else ()):
                    counts[place, row, y] += counts_of_track(*pair, share)
    on, _ = rules.thresholds(names)
    chosen, scores, unchosen = dict(zip(names, on.tolist(), strict=True)), {}, []
    for y, name in enumerate(names):
        if name == BACKGROUND:
            continue
        if not any(one.label == name for truth in truths for one in truth):
            unchosen.append(name)
            continue
        values = f1(*np.moveaxis(counts[:, :, y], -1, 0)).mean(1)
        chosen[name], scores[name] = LEVELS[_middle_of_best(values)], float(values.max())
    off = {name: round(OFF_SHARE * level, 6) for name, level in chosen.items()}
    return Chosen(replace(rules, on=chosen, off=off), scores, tuple(unchosen))


def _middle_of_best(values: np.ndarray) -> int:
    """The middle of the first run of the best values."""
    best = np.flatnonzero(values >= values.max() - 1e-9)
    run = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)[0]
    return int(run[(len(run) - 1) // 2])
