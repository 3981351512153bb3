"""Scores of the report with their intervals, and whether two scores differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evl.demo.results import VariantResult
from evl.evaluation import mean_interval


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


def score_of(outcomes: Sequence[VariantResult]) -> Score | None:
    """With one seed its top-1, with Wilson's interval over videos; with several their mean, with a t-interval.

    None without outcomes.
    """
    if not outcomes:
        return None
    each = tuple(outcome.evaluation.metrics.top1 for outcome in outcomes)
    if len(each) > 1:
        return Score(*mean_interval(each), each)
    return Score(each[0], *outcomes[0].evaluation.metrics.top1_interval, each)


def relation(one: Score, other: Score) -> str:
    """``ahead``, ``behind``, or ``level`` if the intervals overlap, a cautious rule where the videos are the same."""
    return "ahead" if one.low > other.high else "behind" if one.high < other.low else "level"
