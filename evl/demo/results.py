"""The results of the demo: plain data for the table and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evl.evaluation import Evaluation
from evl.types import Prediction

TASKS = ("motion", "object")
# what is compared, in the order of every table
EVL = "EVL"
SIDE = "side network"
SIDE_CAUSAL = "side network, causal"
ATTENTIVE = "attentive probe"
LINEAR = "linear probe"
UNTRAINED = "EVL, untrained backbone"
VARIANTS = (EVL, SIDE, SIDE_CAUSAL, ATTENTIVE, LINEAR, UNTRAINED)
ZERO_SHOT = "zero-shot, by class names"  # not trained at all
ROWS = (*VARIANTS, ZERO_SHOT)


@dataclass(frozen=True)
class VariantResult:
    """One variant, trained and judged on one task.

    ``curve``: (step, training loss, training top-1 in percent), each a mean since the point before. ``trainable``:
    number of trained parameters (decoder and head). ``seconds``: time of training and judging, without the features.
    ``folder``: the run folder for ``evl predict`` and ``evl.load``, or None if none was saved.
    """

    variant: str
    task: str
    seed: int
    evaluation: Evaluation
    curve: tuple[tuple[int, float, float], ...]
    trainable: int
    seconds: float
    folder: Path | None = None


@dataclass(frozen=True)
class Example:
    """One test video with the attention of EVL's query token.

    ``frames``: uint8 (T,H,W,3), the frames of the clip. ``attention`` (M,T,h,w): one map per decoder layer, averaged
    over heads. ``prefix_share`` (M): the share of the attention that went to prefix tokens; with it, the maps of a
    layer sum to 1. ``label``: the true class; ``scores`` (Y): in the order of ``class_names``.
    """

    path: Path
    frames: np.ndarray
    attention: np.ndarray
    prefix_share: np.ndarray
    label: str
    scores: tuple[float, ...]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class DemoResult:
    """``outcomes``: every variant × task × seed. ``chance``: task -> percent. ``prediction``: of the saved run, for the
    file of one video; ``class_names``: of its scores. ``settings`` (name -> text) and ``seconds`` (part -> seconds) are
    shown at the end of the report."""

    folder: Path
    outcomes: tuple[VariantResult, ...]
    chance: dict[str, float]
    examples: tuple[Example, ...]
    prediction: Prediction
    class_names: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, variant: str, task: str) -> tuple[VariantResult, ...]:
        """The outcomes of one variant on one task, one per seed."""
        return tuple(one for one in self.outcomes if one.variant == variant and one.task == task)
