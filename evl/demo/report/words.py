"""Scores of the report with their intervals, and the sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evl.demo.results import (
    ATTENTIVE,
    EVL,
    LINEAR,
    SIDE,
    SIDE_CAUSAL,
    UNTRAINED,
    VARIANTS,
    DemoResult,
    VariantResult,
)
from evl.evaluation import mean_interval

NAMES = {  # inside a sentence
    EVL: "EVL",
    SIDE: "the side network",
    SIDE_CAUSAL: "the causal side network",
    ATTENTIVE: "the attentive probe",
    LINEAR: "the linear probe",
    UNTRAINED: "EVL on the untrained encoder",
}
PARTS = (  # what a difference of two variants stands for
    ("the side network rather than EVL’s decoder", SIDE, EVL),
    ("the side network rather than an attentive probe", SIDE, ATTENTIVE),
    ("that the side network reads frames ahead", SIDE, SIDE_CAUSAL),
    ("EVL’s decoder rather than an attentive probe", EVL, ATTENTIVE),
    ("EVL’s decoder rather than a linear probe", EVL, LINEAR),
    ("what the encoder learned from stills, for EVL", EVL, UNTRAINED),
)


def scores_of(result: DemoResult, task: str, variants: Sequence[str] = VARIANTS) -> dict[str, Score]:
    """Variant -> score, for the variants that were judged on this task, in the order of the table."""
    scores = {variant: score_of(result.of(variant, task)) for variant in variants}
    return {variant: score for variant, score in scores.items() if score is not None}


def best_for(result: DemoResult, task: str) -> str | None:
    """The variant with the highest score on a task; None if none was judged on it."""
    scores = scores_of(result, task)
    return max(scores, key=lambda variant: scores[variant].value) if scores else None


def headline(result: DemoResult) -> list[str]:
    """Sentences: which is best for motion, how the others compare, which is best for objects, and on which videos."""
    best, scores = best_for(result, "motion"), scores_of(result, "motion")
    evaluation, chance = result.of(best, "motion")[0].evaluation, result.chance["motion"]
    num_seeds = len(scores[best].each)
    seeds = f", mean of {num_seeds} seeds" if num_seeds > 1 else ""
    num_videos = f"{num_seeds} × " * bool(seeds) + f"{evaluation.metrics.num_videos:,}"
    guessing = "where guessing gives" if scores[best].low > chance else "not told apart from guessing, which gives"
    title = "the best for motion is" if not _level(best, scores) else "the highest score for motion is that of"
    first = (
        f"On {num_videos} test videos, {title} {NAMES[best]}. It names the right one of "
        f"{len(evaluation.class_names)} motions in {scores[best].percent} (95\u00a0% interval "
        f"{scores[best].interval}{seeds}), {guessing} {chance:.1f}\u00a0%."
    )
    sentences = [first, f"That is {_compared(best, scores)}." if len(scores) > 1 else "Nothing else was trained."]
    if scores := scores_of(result, "object"):
        other = best_for(result, "object")
        shown = {one: scores[one] for one in scores if one in (other, best, *_level(other, scores))}
        compared = f", {_compared(other, shown)}" if len(shown) > 1 else ""
        sentences.append(
            f"For the kind of object, the highest is {NAMES[other]} with {scores[other].percent}{compared}."
        )
    sentences.append(
        "No decoder was trained on the objects of the test videos, and neither decoders nor encoder on their artist."
    )
    return sentences


def _level(best: str, scores: dict[str, Score]) -> list[str]:
    """The other variants whose intervals overlap with that of the best."""
    return [one for one in scores if one != best and relation(scores[best], scores[one]) == "level"]


def _compared(best: str, scores: dict[str, Score]) -> str:
    """How the best score compares with the others, in clauses."""
    level = _level(best, scores)
    said = {one: f"{NAMES[one]} ({scores[one].percent})" for one in scores if one != best}
    clauses = []
    if behind := [text for one, text in said.items() if one not in level]:
        clauses.append(f"clearly more than {listed(behind)} reached")
    if level:
        clauses.append(f"too close to {listed([said[one] for one in level])} to tell which is better")
    return listed(clauses)


def difference(result: DemoResult, one: str, other: str, task: str) -> tuple[str, str, str] | None:
    """(``one`` minus ``other`` in points, whether their intervals are apart, class of the style sheet for that).

    None if one of the two was not judged.
    """
    scores = scores_of(result, task)
    if one not in scores or other not in scores:
        return None
    points = scores[one].value - scores[other].value
    sure = relation(scores[one], scores[other]) != "level"
    return f"{points:+.1f}".replace("-", "−"), *(
        ("intervals apart", "sure") if sure else ("intervals overlap", "unsure")
    )


def confused(class_names: Sequence[str], counts: np.ndarray, most: int = 3) -> str:
    """The most frequent wrong predictions as a sentence; '' if there are none. ``counts`` (Y,Y): label, prediction."""
    wrong = np.array(counts)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(*divmod(int(place), len(class_names)),) for place in order if wrong.flat[place]]
    if not pairs:
        return ""
    said = [f"“{class_names[y]}” named “{class_names[z]}” ({wrong[y, z]} of {counts[y].sum()})" for y, z in pairs]
    return f"Most frequent mistakes: {listed(said)}."


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{int(seconds + 0.5) // 60} min {int(seconds + 0.5) % 60:02d} s"


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
