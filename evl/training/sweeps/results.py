"""What came out of a sweep: a table, a picture, and every head as a run of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evl._version import __version__
from evl.config import RunConfig
from evl.evaluation import Evaluation, write_evaluation
from evl.saving import save_model
from evl.store.description import StoreDescription
from evl.training.learner import Learner
from evl.training.outcome import Outcome
from evl.training.run_folder import RunFolder
from evl.training.sweeps.grid import Point
from evl.types import Sample


@dataclass(frozen=True)
class LearnerResult:
    """One head. ``evaluation`` is None and ``problem`` says why if it was dropped; ``val_loss``: the mean of
    −log of the right class's score; ``curve``: (step, learning rate, loss, percent of hits)."""

    number: int
    settings: dict[str, str]
    trainable: int
    curve: tuple[tuple[int, float, float, float], ...]
    evaluation: Evaluation | None
    val_loss: float | None
    problem: str | None

    def row(self, *, has_top5: bool) -> dict:
        """For tables: what varies first, then what was measured. ``has_top5``: of all heads of a sweep, or of none."""
        scores = dict.fromkeys(("val_top1", "val_top1_low", "val_top1_high", "val_top5", "val_loss"))
        if self.evaluation is not None:
            metrics = self.evaluation.metrics
            low, high = metrics.top1_interval
            scores = dict(zip(scores, (metrics.top1, low, high, metrics.top5, self.val_loss), strict=True))
        if not has_top5:
            del scores["val_top5"]
        last = self.curve[-1] if self.curve else (None,) * 4
        measured = {**scores, "train_loss": _finite(last[2]), "train_top1": last[3], "trainable": self.trainable}
        return {"head": self.number, **self.settings, **measured, "problem": self.problem}


@dataclass(frozen=True)
class SweepResult:
    """``ranked``: heads that were judged, best first, then those that were dropped. ``test``: of the chosen one."""

    folder: Path
    config: RunConfig  # what all heads share
    ranked: tuple[LearnerResult, ...]
    steps: int = 0
    test: Evaluation | None = None
    damaged: dict[str, str] = field(default_factory=dict)
    training_seconds: float = 0.0
    judging_seconds: float = 0.0
    outcome: Outcome | None = None  # of the chosen head, on the validation videos

    @property
    def best(self) -> LearnerResult:
        return self.ranked[0]

    @property
    def judged(self) -> tuple[LearnerResult, ...]:
        return tuple(head for head in self.ranked if head.evaluation is not None)

    @property
    def has_top5(self) -> bool:
        """Whether top-5 says something of so many classes (``Metrics.top5``)."""
        return self.best.evaluation.metrics.top5 is not None

    @property
    def rows(self) -> list[dict]:
        """A row a head for tables, best first."""
        return [head.row(has_top5=self.has_top5) for head in self.ranked]

    @property
    def as_good(self) -> int:
        """Heads, the chosen one among them, whose intervals overlap with its: which of them is best, chance may say."""
        low = self.best.evaluation.metrics.top1_interval[0]
        return sum(head.evaluation.metrics.top1_interval[1] >= low for head in self.judged)

    @property
    def verdict(self) -> str:
        """What the chosen score is worth, in words."""
        top1, count = self.best.evaluation.metrics.top1, len(self.judged)
        if self.test is not None:
            low, high = self.test.metrics.top1_interval
            return (
                f"test top-1 of the chosen head {self.test.metrics.top1:.1f} % ({low:.1f} to {high:.1f}); no head was "
                "chosen by these videos"
            )
        if count == 1:
            return "one head: nothing was chosen"
        return (
            f"the chosen head's {top1:.1f} % is optimistic: it is the best of {count} by these very videos, and there "
            "is no test split; judge it on other videos: evl evaluate"
        )

    def to_dict(self) -> dict:
        best = self.best
        return {
            "evl": __version__,
            "chosen": best.number,
            "chosen_settings": best.settings,
            "chosen_by": f"val top-1, then val loss; {best.evaluation.protocol}",
            "overlapping_with_chosen": self.as_good,
            "verdict": self.verdict,
            "outcome": self.outcome and self.outcome.to_dict(),
            "test": None if self.test is None else {
                **self.test.to_dict(), "top1_interval": self.test.metrics.top1_interval,
            },
            "shared_seed": self.config.training.seed,  # of the order of clips; a head's own draws its initial values
            "steps": self.steps,
            "training_seconds": round(self.training_seconds, 1),
            "judging_seconds": round(self.judging_seconds, 1),
            "num_damaged": len(self.damaged),
            "heads": [
                {**row, "curve": [[*point[:2], _finite(point[2]), point[3]] for point in head.curve]}
                for head, row in zip(self.ranked, self.rows, strict=True)
            ],
        }  # fmt: skip


def collect(
    points: Sequence[Point],
    heads: Sequence[Learner],
    evaluations: Sequence[Evaluation | None],
    out: Path,
    config: RunConfig,
) -> SweepResult:
    """Ranked by val top-1, ties by the loss on the same videos."""
    results = [
        LearnerResult(
            number, point.settings, sum(p.numel() for p in head.model.trainable_parameters()), tuple(head.curve),
            evaluation, None if evaluation is None else _loss(evaluation), head.problem,
        )
        for number, (point, head, evaluation) in enumerate(zip(points, heads, evaluations, strict=True))
    ]  # fmt: skip

    def rank(one: LearnerResult) -> tuple:
        if one.evaluation is None:
            return math.inf, math.inf
        return -one.evaluation.metrics.top1, one.val_loss

    return SweepResult(out, config, tuple(sorted(results, key=rank)))


def _loss(evaluation: Evaluation) -> float:
    losses = [-math.log(max(one.scores[one.label], 1e-12)) for one in evaluation.predictions]
    return sum(losses) / max(1, len(losses))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def save_learner(
    folder: Path,
    head: Learner,
    evaluation: Evaluation | None,
    samples: Mapping[str, Sequence[Sample]],
    missing: Mapping[str, Sequence[Sample]],
    features: StoreDescription | None,
    sweep: SweepResult | None = None,
    *,
    predictions: bool = False,
) -> None:
    """A run folder like any other, with ``predictions`` only if they are wanted. ``features``: of the store it read.
    ``sweep``: this head was chosen in it; its card then tells the test's scores, or among how many it was chosen."""
    run = RunFolder(folder)
    run.create(head.config, head.model.class_names, samples["train"], samples["val"], missing, features)
    for step, rate, loss, top1 in head.curve:
        run.log({"step": step, "lr": rate, "loss": loss, "train_top1": top1})
    scores = None
    if evaluation is not None:
        run.log({"step": head.config.training.steps, "final": evaluation.to_dict()})
        write_evaluation(folder, evaluation, picture=sweep is not None, predictions=predictions)
        scores = evaluation.to_dict()
    if sweep is not None and sweep.test is not None:
        write_evaluation(folder / "test", sweep.test)
        scores = sweep.test.to_dict()
    elif sweep is not None:
        scores["chosen_among"] = len(sweep.judged)
    save_model(head.model, folder, scores=scores)
