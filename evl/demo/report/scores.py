"""Numbers of the report: a score with its interval, and whether two differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evl.demo.results import Outcome


@dataclass(frozen=True)
class Score:
    """Percent of videos, with the limits of its 95 % interval; ``each``: the top-1 of every seed."""

    value: float
    low: float
    high: float
    each: tuple[float, ...]

    @property
    def percent(self) -> str:
        return f"{self.value:.1f}\u00a0%"

    @property
    def interval(self) -> str:
        return f"{self.low:.1f}–{self.high:.1f}"


def score_of(outcomes: Sequence[Outcome]) -> Score | None:
    """One seed: Wilson's interval over videos. Several: their mean, with a t-interval over seeds. None: None."""
    if not outcomes:
        return None
    each = tuple(outcome.evaluation.metrics.top1 for outcome in outcomes)
    if len(each) > 1:
        return Score(*mean_interval(each), each)
    confusion = outcomes[0].evaluation.metrics.confusion
    return Score(each[0], *interval(int(confusion.trace()), int(confusion.sum())), each)


def relation(one: Score, other: Score) -> str:
    """``ahead``, ``behind``, or ``level`` where the intervals overlap: careful, because the videos are the same."""
    return "ahead" if one.low > other.high else "behind" if one.high < other.low else "level"


Z95 = statistics.NormalDist().inv_cdf(0.975)
# Student's t at 97.5 %, for 1, 2, … degrees of freedom
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(hits: int, videos: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent: (low, high)."""
    if not videos:
        return 0.0, 100.0
    share, spread = hits / videos, Z95**2 / videos
    half = Z95 * math.sqrt(share * (1 - share) / videos + spread / (4 * videos))
    return tuple(100 * (share + spread / 2 + side * half) / (1 + spread) for side in (-1, 1))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of percents and its 95 % t-interval, cut to 0–100: (mean, low, high)."""
    mean = statistics.fmean(values)
    t = T95[min(len(values) - 1, len(T95)) - 1]
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(100.0, mean + half)
