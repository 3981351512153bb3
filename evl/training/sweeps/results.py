"""What came out of a sweep: a table, a picture, and every head as a run of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evl._version import __version__
from evl.config import RunConfig
from evl.errors import DataError
from evl.evaluation import Evaluation, Score, write_evaluation
from evl.saving import save_model
from evl.store.description import StoreDescription
from evl.training.learner import Learner
from evl.training.outcome import Outcome
from evl.training.run_folder import RunFolder
from evl.training.sweeps.grid import Point
from evl.types import Sample

log = logging.getLogger("evl")


@dataclass(frozen=True)
class LearnerResult:
    """One head. ``evaluation`` is None and ``problem`` says why if it was dropped; ``curve``: (step, learning rate,
    loss, percent of hits)."""

    number: int
    settings: dict[str, str]
    trainable: int
    curve: tuple[tuple[int, float, float, float], ...]
    evaluation: Evaluation | None
    problem: str | None

    @property
    def val_loss(self) -> float | None:
        return None if self.evaluation is None else self.evaluation.metrics.loss

    def scores(self) -> dict[str, float | None]:
        """Metrics that models are compared by, with their intervals: ``val_top1``, ``val_top1_low``, …"""
        found = {}
        for name, score in self.evaluation.metrics.comparable.items():
            found[f"val_{name}"] = _finite(score.value)
            if score.metric.interval is not None:
                low, high = score.interval or (None, None)
                found |= {f"val_{name}_low": low, f"val_{name}_high": high}
        return found

    def row(self, names: Sequence[str]) -> dict:
        """For tables: what varies first, then what was measured. ``names``: of ``scores``."""
        scores = dict.fromkeys(names) if self.evaluation is None else self.scores()
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

    def score(self, evaluation: Evaluation) -> Score:
        """What ``training.select_by`` names."""
        return evaluation.metrics.scores[self.config.training.select_by]

    @property
    def title(self) -> str:
        """Of the metric that was chosen by."""
        return self.score(self.best.evaluation).metric.title

    @property
    def selected(self) -> str:
        """How the best was chosen, in words."""
        count = len(self.judged)
        return f"chosen of {count} heads by val {_by(self.config, self.title)}" if count > 1 else "the only head"

    @property
    def rows(self) -> list[dict]:
        """A row a head for tables, best first."""
        return [head.row(self.best.scores().keys()) for head in self.ranked]

    @property
    def as_good(self) -> int | None:
        """Heads, the chosen one among them, whose intervals overlap with its: which of them is best, chance may say.
        None where the metric has no interval."""
        intervals = [self.score(head.evaluation).interval for head in self.judged]
        if intervals[0] is None:
            return None
        low, high = intervals[0]
        return sum(one is not None and one[0] <= high and one[1] >= low for one in intervals)

    @property
    def verdict(self) -> str:
        """What the chosen score is worth, in words."""
        count = len(self.judged)
        if self.test is not None:
            score = self.score(self.test).text(interval=True)
            return f"test {self.title} of the chosen head {score}; no head was chosen by these videos"
        if count == 1:
            return "one head: nothing was chosen"
        return (
            f"the chosen head's {self.score(self.best.evaluation).text()} is optimistic: it is the best of {count} by "
            "these very videos, and there is no test split; judge it on other videos: evl evaluate"
        )

    def to_dict(self) -> dict:
        best = self.best
        return {
            "evl": __version__,
            "chosen": best.number,
            "chosen_settings": best.settings,
            "chosen_by": f"val {_by(self.config, self.title)}; {best.evaluation.protocol}",
            "overlapping_with_chosen": self.as_good,
            "verdict": self.verdict,
            "outcome": self.outcome and self.outcome.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "shared_seed": self.config.training.seed,  # of the order of clips; a head's own draws its initial values
            "steps": self.steps,
            "training_seconds": round(self.training_seconds, 1),
            "judging_seconds": round(self.judging_seconds, 1),
            "num_damaged": len(self.damaged),
            "heads": [
                {**row, "curve": [[*point[:2], _finite(point[2]), point[3]] for point in head.curve]}
                for head, row in zip(self.ranked, self.rows, strict=True)
            ],
        }


def collect(
    points: Sequence[Point],
    heads: Sequence[Learner],
    evaluations: Sequence[Evaluation | None],
    out: Path,
    config: RunConfig,
) -> SweepResult:
    """Ranked by ``training.select_by`` on the validation videos, ties by their loss. Raises DataError where no head has
    a number to be chosen by."""
    results = [
        LearnerResult(
            number, point.settings, sum(p.numel() for p in head.model.trainable_parameters()), tuple(head.curve),
            evaluation, head.problem,
        )
        for number, (point, head, evaluation) in enumerate(zip(points, heads, evaluations, strict=True))
    ]  # fmt: skip

    def rank(one: LearnerResult) -> tuple:
        if one.evaluation is None:
            return 1, math.inf, math.inf
        return 0, result.score(one.evaluation).rank, one.val_loss

    result = SweepResult(out, config, ())
    result = replace(result, ranked=tuple(sorted(results, key=rank)))
    without = [one.number for one in result.judged if math.isinf(rank(one)[1])]
    if len(without) == len(result.judged):
        raise DataError(f"no head has a number for {config.training.select_by} on the validation videos")
    if without:
        which = ", ".join(map(str, without))
        log.warning("heads without a number for val %s, which cannot be chosen: %s", result.title, which)
    return result


def _by(config: RunConfig, title: str) -> str:
    return title if config.training.select_by == "loss" else f"{title}, then val loss"


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
        scores |= {"chosen_among": len(sweep.judged), "protocol": f"{evaluation.protocol}, {sweep.selected}"}
    save_model(head.model, folder, scores=scores)
