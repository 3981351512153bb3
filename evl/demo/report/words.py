"""Scores of the report with their intervals, and the sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evl.demo.results import ATTENTIVE, EVL, LINEAR, NO_TEMPORAL, UNTRAINED, VARIANTS, DemoResult, VariantResult
from evl.evaluation import mean_interval

NAMES = {  # inside a sentence
    NO_TEMPORAL: "EVL without its local temporal module",
    ATTENTIVE: "the attentive probe",
    LINEAR: "the linear probe",
    UNTRAINED: "EVL on the untrained encoder",
}
PARTS = (  # what a difference of two variants stands for
    ("the local temporal module", NO_TEMPORAL),
    ("what the encoder learned from stills", UNTRAINED),
    ("EVL’s decoder rather than an attentive probe", ATTENTIVE),
    ("EVL’s decoder rather than a linear probe", LINEAR),
)


def scores_of(result: DemoResult, task: str, variants: Sequence[str] = VARIANTS) -> dict[str, Score]:
    """Variant -> score, for the variants that were judged on this task, in the order of the table."""
    scores = {variant: score_of(result.of(variant, task)) for variant in variants}
    return {variant: score for variant, score in scores.items() if score is not None}


def headline(result: DemoResult) -> tuple[str, str, str]:
    """Three sentences: what EVL reached on motions, how that compares with the others, and on which videos."""
    scores = scores_of(result, "motion")
    evaluation, evl, chance = result.of(EVL, "motion")[0].evaluation, scores[EVL], result.chance["motion"]
    seeds = f", mean of {len(evl.each)} seeds" if len(evl.each) > 1 else ""
    num_videos = f"{len(evl.each)} × " * bool(seeds) + f"{evaluation.metrics.num_videos:,}"
    guessing = "where guessing gives" if evl.low > chance else "not told apart from guessing, which gives"
    first = (
        f"On {num_videos} test videos, EVL’s decoder on a frozen image encoder names the right one of "
        f"{len(evaluation.class_names)} motions in {evl.percent} (95\u00a0% interval {evl.interval}{seeds}), "
        f"{guessing} {chance:.1f}\u00a0%."
    )
    clauses = []
    for kind, phrase in (
        ("ahead", "clearly more than {} reached"),
        ("level", "too close to {} to tell which is better"),
        ("behind", "clearly less than {} reached"),
    ):
        others = [f"{name} ({scores[key].percent})" for key, name in NAMES.items()
                  if key in scores and relation(evl, scores[key]) == kind]  # fmt: skip
        if others:
            clauses.append(phrase.format(listed(others)))
    second = f"That is {listed(clauses)}." if clauses else "Nothing else was trained to compare it with."
    third = (
        "No decoder was trained on the objects of the test videos, and neither decoders nor encoder on their artist."
    )
    return first, second, third


def difference(result: DemoResult, other: str, task: str) -> tuple[str, str, str] | None:
    """(EVL minus another variant in points, whether their intervals are apart, class of the style sheet for that).

    None if one of the two was not judged.
    """
    scores = scores_of(result, task)
    if EVL not in scores or other not in scores:
        return None
    points = scores[EVL].value - scores[other].value
    sure = relation(scores[EVL], scores[other]) != "level"
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
