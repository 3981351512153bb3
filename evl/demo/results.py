"""What the demo found: plain data for the table, the report, and whoever else wants to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evl.evaluation import Evaluation
from evl.types import Prediction

TASKS = ("motion", "object")
# what is compared, in the order of every table
EVL = "EVL"
NO_TEMPORAL = "EVL without local temporal module"
ATTENTIVE = "attentive probe"
LINEAR = "linear probe"
UNTRAINED = "EVL, untrained backbone"
VARIANTS = (EVL, NO_TEMPORAL, ATTENTIVE, LINEAR, UNTRAINED)
ZERO_SHOT = "zero-shot, by class names"  # not trained at all
ROWS = (*VARIANTS, ZERO_SHOT)


@dataclass(frozen=True)
class VariantResult:
    """One variant, trained and judged on one task.

    ``curve``: (step, training loss, training top-1 in percent), each a mean since the point before. ``trainable``:
    parameters of decoder and head. ``seconds``: training and judging, without making the features. ``folder``: a run
    that ``evl predict`` and ``evl.load`` take, where one was saved.
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
    """One judged video with what EVL's query looked at.

    ``frames``: uint8 (T,H,W,3), the frames of the clip. ``attention`` (M,T,h,w): a map a decoder layer, heads averaged,
    that sums to 1 over T, h, w; ``prefix_share`` (M): the share of the attention that prefix tokens had. ``label``: the
    true class; ``scores`` (Y): those of ``class_names``.
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
    """``outcomes``: every variant × task × seed. ``chance``: task -> percent. ``prediction``: one video through the
    saved run, from its file; ``class_names``: those of its scores. ``settings`` and ``seconds``: for the foot of the
    report, in words, and part -> seconds."""

    folder: Path
    outcomes: tuple[VariantResult, ...]
    chance: dict[str, float]
    examples: tuple[Example, ...]
    prediction: Prediction
    class_names: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, variant: str, task: str) -> tuple[VariantResult, ...]:
        """The outcomes of one variant on one task, a seed each."""
        return tuple(one for one in self.outcomes if one.variant == variant and one.task == task)
