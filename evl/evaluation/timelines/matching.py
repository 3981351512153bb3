"""Which found segments are right: the rules of the two fields that judge segments. Only arithmetic.

**Detection** (ActivityNet's, also used for THUMOS at 0.3 to 0.7): the found segments of a class are taken by their
score, the best first. Each takes, in its video, the true segment of its class with which it overlaps most among those
that are still free, if their temporal IoU is at least the threshold. Else it is wrong. So a true segment is matched
once. The average precision is the area under precision over recall, where the precision at a recall is the best one at
that recall or a higher one.

**Segmentation** (Lea et al., CVPR 2017; Abu Farha and Gall, CVPR 2019): the segments of a track are taken in the order
of time. Each looks at the true segment of its class with which it overlaps most, free or not. It is right if that one
is free and their temporal IoU is at least the threshold. F1 is of the counts of all videos and classes together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evl.evaluation.timelines.tracks import overlaps
from evl.inference.segments import Segment

_ROUNDING = 1e-9  # a temporal IoU of 0.7 that came out as 0.69999… is 0.7


def detections(
    found: Sequence[Segment], truth: Sequence[Segment], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """(scores (n), hits (n,·) bool for each threshold) of the found segments of one class in one video, best first."""
    found = sorted(found, key=lambda one: -one.score)
    table, hits = overlaps(found, truth), np.zeros((len(found), len(thresholds)), bool)
    for column, threshold in enumerate(thresholds):
        free = np.ones(len(truth), bool)
        for row in range(len(found)):
            able = np.where(free, table[row], -1.0)
            if len(truth) and able.max() >= threshold - _ROUNDING:
                free[able.argmax()] = False
                hits[row, column] = True
    return np.array([one.score for one in found], np.float64), hits


def average_precision(hits: np.ndarray, weights: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """(B): the interpolated average precision of found segments, best first, for B draws of videos.

    ``hits`` (n) bool; ``weights`` (B,n): how often each one's video was drawn; ``positives`` (B): the number of true
    segments. NaN where there are none.
    """
    right = np.cumsum(weights * hits, 1)
    total = np.cumsum(weights, 1)
    precision = np.divide(right, total, out=np.zeros(weights.shape), where=total > 0)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    area = (weights * hits * best).sum(1)
    return np.divide(area, positives, out=np.full(len(positives), np.nan), where=positives > 0)


def counts_of_track(found: Sequence[Segment], truth: Sequence[Segment], threshold: float) -> tuple[int, int, int]:
    """(right, wrong, missed) segments of a track in one video."""
    right, wrong, free = 0, 0, [True] * len(truth)
    for one in sorted(found, key=lambda one: one.start_seconds):
        same = [place for place, other in enumerate(truth) if other.label == one.label]
        shares = overlaps([one], [truth[place] for place in same])[0]
        if len(same) and shares.max() >= threshold - _ROUNDING and free[same[shares.argmax()]]:
            free[same[shares.argmax()]] = False
            right += 1
        else:
            wrong += 1
    return right, wrong, sum(free)


def f1(right, wrong, missed):
    """Percent 2·right / (2·right + wrong + missed); 100 where there is nothing to find and nothing was found."""
    total = 2 * np.asarray(right, np.float64) + wrong + missed
    return 100 * np.divide(2 * np.asarray(right, np.float64), total, out=np.ones_like(total), where=total > 0)


def edit_score(found: Sequence[str], truth: Sequence[str]) -> float:
    """Percent 1 − d / (the longer list's length), with the fewest insertions, deletions and exchanges d between them.

    100 for two empty lists.
    """
    if not found and not truth:
        return 100.0
    before = list(range(len(truth) + 1))
    for row, one in enumerate(found, 1):
        now = [row]
        for column, other in enumerate(truth, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (one != other)))
        before = now
    return 100 * (1 - before[-1] / max(len(found), len(truth)))
