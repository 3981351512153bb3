"""The results of a sweep: all learners ranked, and each saved as a run."""

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
from evl.runtime.files import json_bytes, pair_id
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
    """The result of one learner of a sweep."""

    number: int  # in the grid, from 0
    settings: dict[str, str]  # the varying settings, with their values as written
    trainable: int  # number of its parameters
    curve: tuple[tuple[int, float, float, float], ...]  # (step, learning rate, loss, percent of hits) of each report
    evaluation: Evaluation | None  # on the validation videos; None if the learner was dropped
    problem: str | None  # why it was dropped, or None

    @property
    def val_loss(self) -> float | None:
        return None if self.evaluation is None else self.evaluation.metrics.loss

    def scores(self) -> dict[str, float | None]:
        """The metrics that can be compared, with their intervals: ``val_top1``, ``val_top1_low``, …"""
        values = {}
        for name, score in self.evaluation.metrics.comparable.items():
            values[f"val_{name}"] = _finite(score.value)
            if score.metric.interval is not None:
                low, high = score.interval or (None, None)
                values |= {f"val_{name}_low": low, f"val_{name}_high": high}
        return values

    def row(self, names: Sequence[str]) -> dict:
        """A row for tables: first the settings, then what was measured. ``names``: the columns of ``scores``."""
        scores = dict.fromkeys(names) if self.evaluation is None else self.scores()
        last = self.curve[-1] if self.curve else (None,) * 4
        measured = {**scores, "train_loss": _finite(last[2]), "train_top1": last[3], "trainable": self.trainable}
        return {"learner": self.number, **self.settings, **measured, "problem": self.problem}


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    folder: Path  # of the sweep
    config: RunConfig  # what all learners share
    ranked: tuple[LearnerResult, ...]  # the learners that were judged, best first, then those that were dropped
    steps: int = 0
    test: Evaluation | None = None  # the evaluation of the chosen learner on the test split, if there is one
    damaged: dict[str, str] = field(default_factory=dict)  # training videos that could not be read, path → reason
    training_seconds: float = 0.0
    judging_seconds: float = 0.0
    outcome: Outcome | None = None  # of the chosen learner, on the validation videos

    @property
    def best(self) -> LearnerResult:
        return self.ranked[0]

    @property
    def judged(self) -> tuple[LearnerResult, ...]:
        return tuple(learner for learner in self.ranked if learner.evaluation is not None)

    def score(self, evaluation: Evaluation) -> Score:
        """The score by which the learner is chosen (``training.select_by``)."""
        return evaluation.metrics.scores[self.config.training.select_by]

    @property
    def title(self) -> str:
        """The name of the metric by which the learner is chosen."""
        return self.score(self.best.evaluation).metric.title

    @property
    def selected(self) -> str:
        """How the best was chosen, in words."""
        count = len(self.judged)
        return f"chosen of {count} learners by val {_by(self.config, self.title)}" if count > 1 else "the only learner"

    @property
    def rows(self) -> list[dict]:
        """A row per learner for tables, best first."""
        return [learner.row(self.best.scores().keys()) for learner in self.ranked]

    @property
    def sweep_id(self) -> str:
        """The id of the pair of ``sweep.json`` and ``sweep.csv``."""
        return pair_id(json_bytes(self.rows))

    @property
    def as_good(self) -> int | None:
        """The number of learners whose interval overlaps with that of the chosen one, itself included.

        Chance may have decided which of them is best. None if the metric has no interval.
        """
        intervals = [self.score(learner.evaluation).interval for learner in self.judged]
        if intervals[0] is None:
            return None
        low, high = intervals[0]
        return sum(own is not None and own[0] <= high and own[1] >= low for own in intervals)

    @property
    def verdict(self) -> str:
        """How far the chosen score can be trusted, in words."""
        count = len(self.judged)
        if self.test is not None:
            score = self.score(self.test).text(interval=True)
            return f"test {self.title} of the chosen learner {score}; no learner was chosen by these videos"
        if count == 1:
            return "one learner: nothing was chosen"
        return (
            f"the chosen learner's {self.score(self.best.evaluation).text()} is optimistic: it is the best of {count} "
            "on these very videos, and there is no test split; judge it on other videos: evl evaluate"
        )

    def to_dict(self) -> dict:
        best = self.best
        return {
            "evl": __version__,
            "sweep_id": self.sweep_id,
            "chosen": best.number,
            "chosen_settings": best.settings,
            "chosen_by": f"val {_by(self.config, self.title)}; {best.evaluation.protocol}",
            "overlapping_with_chosen": self.as_good,
            "verdict": self.verdict,
            "outcome": self.outcome and self.outcome.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "shared_seed": self.config.training.seed,  # of the order of clips; initial values have each learner's seed
            "steps": self.steps,
            "training_seconds": round(self.training_seconds, 1),
            "judging_seconds": round(self.judging_seconds, 1),
            "num_damaged": len(self.damaged),
            "learners": [
                {**row, "curve": [[*point[:2], _finite(point[2]), point[3]] for point in learner.curve]}
                for learner, row in zip(self.ranked, self.rows, strict=True)
            ],
        }


def collect(
    points: Sequence[Point],
    learners: Sequence[Learner],
    evaluations: Sequence[Evaluation | None],
    out: Path,
    config: RunConfig,
) -> SweepResult:
    """Ranks the learners by ``training.select_by`` on the validation videos, and by loss if these are equal.

    Raises DataError if no learner has a number for that metric.
    """
    results = [
        LearnerResult(
            number, point.settings, sum(p.numel() for p in learner.model.trainable_parameters()), tuple(learner.curve),
            evaluation, learner.problem,
        )
        for number, (point, learner, evaluation) in enumerate(zip(points, learners, evaluations, strict=True))
    ]  # fmt: skip

    def rank(learner: LearnerResult) -> tuple:
        if learner.evaluation is None:
            return 1, math.inf, math.inf
        return 0, result.score(learner.evaluation).rank, learner.val_loss

    result = SweepResult(out, config, ())
    result = replace(result, ranked=tuple(sorted(results, key=rank)))
    without = [learner.number for learner in result.judged if math.isinf(rank(learner)[1])]
    if len(without) == len(result.judged):
        raise DataError(f"no learner has a number for {config.training.select_by} on the validation videos")
    if without:
        which = ", ".join(map(str, without))
        log.warning("learners without a number for val %s, which cannot be chosen: %s", result.title, which)
    return result


def _by(config: RunConfig, title: str) -> str:
    return title if config.training.select_by == "loss" else f"{title}, then val loss"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def save_learner(
    folder: Path,
    learner: Learner,
    evaluation: Evaluation | None,
    samples: Mapping[str, Sequence[Sample]],
    missing: Mapping[str, Sequence[Sample]],
    features: StoreDescription | None,
    sweep: SweepResult | None = None,
    *,
    predictions: bool = False,
) -> None:
    """Writes a learner as a run folder (``RunFolder.create``).

    ``evaluation``: on the validation videos; None if the learners could not be judged. ``sweep``: given for the chosen
    learner, whose card has the scores of the test split, or without one the number of learners that it was chosen of.
    """
    run = RunFolder(folder)
    run.create(learner.config, learner.model.class_names, samples["train"], samples["val"], missing, features)
    for step, rate, loss, top1 in learner.curve:
        run.log({"step": step, "lr": rate, "loss": loss, "train_top1": top1})
    scores = None
    if evaluation is not None:
        run.log({"step": learner.config.training.steps, "final": evaluation.to_dict()})
        scores = evaluation.to_dict()
    test = None if sweep is None else sweep.test
    if test is not None:
        scores = test.to_dict()
    elif sweep is not None:
        scores |= {"chosen_among": len(sweep.judged), "protocol": f"{evaluation.protocol}, {sweep.selected}"}
    save_model(learner.model, folder, scores=scores)
    if evaluation is not None:
        write_evaluation(folder, evaluation, picture=sweep is not None, predictions=predictions)
    if test is not None:
        write_evaluation(folder / "test", test)
