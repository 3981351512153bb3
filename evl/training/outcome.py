"""The outcome of a training in one line: chance, training and validation score, and what to try next.

A score is measured by its share of the way from chance to 100 %, so the rules are the same for 2 classes and for 400.
docs/low-score.md explains them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from evl.backbones.embedded import EMBEDDED
from evl.config import RunConfig
from evl.evaluation import Metrics
from evl.types import Sample

LITTLE = 0.2  # share of the way from chance to 100 %; with less, nothing was learned
MUCH = 0.5
LARGE_BACKBONE = "vit_base_patch16_clip_quickgelu_224.openai"
PAGE = "docs/low-score.md"
_WORDS = {
    "memorized": "memorized (good on training videos, not on others)",
    "not_learned": "nothing was learned",
    "partly_learned": "learned in part",
    "learned": "learned",
    "too_few": "not shown (so few validation videos cannot tell this score from chance)",
    "not_judged": "not judged (there are no validation videos)",
}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training. Scores are top-1 in percent."""

    # what was learned
    kind: Literal["memorized", "not_learned", "partly_learned", "learned", "too_few", "not_judged"]
    chance: float  # Metrics.chance of the validation videos; of the training videos if there are none
    train_top1: float  # of augmented training clips, over the last tenth of the steps
    train_loss: float  # of the same clips
    val_top1: float | None  # of the last evaluation
    val_top1_interval: tuple[float, float] | None  # its 95 % interval
    advice: tuple[str, ...]  # what to try next
    selected: str | None = None  # what the validation videos decided, and by which metric

    @property
    def sentence(self) -> str:
        scores = f"chance {self.chance:.1f} %, training {self.train_top1:.1f} % (loss {self.train_loss:.2f})"
        if self.val_top1 is not None:
            low, high = self.val_top1_interval
            scores += f", validation {self.val_top1:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        line = f"{_WORDS[self.kind]}: {scores}" + (f"; {self.selected}" if self.selected else "")
        return f"{line}; try {', '.join(self.advice)}; see {PAGE}" if self.advice else line

    def to_dict(self) -> dict:
        return {**asdict(self), "sentence": self.sentence}


def outcome_of(
    config: RunConfig,
    curve: Sequence[tuple[int, float, float]],
    train: Sequence[Sample],
    metrics: Metrics | None,
    stored_clips: int | None = None,
    is_swept: bool = False,
    selected: str | None = None,
) -> Outcome | None:
    """The outcome of a training; None if ``curve`` has no points: (step, mean loss, percent of hits) of each report.

    ``metrics``: of the validation videos; None if there are none. ``stored_clips``: per training video, in a run from a
    store. ``is_swept``: whether the model was chosen in a sweep.
    """
    if not curve:
        return None
    loss, top1 = _at_the_end(curve)
    train_chance = 100 * max(Counter(sample.label for sample in train).values(), default=0) / max(1, len(train))
    if metrics is None or not metrics.num_videos:
        return Outcome("not_judged", train_chance, top1, loss, None, None, ())
    kind = _kind(_lift(top1, train_chance), metrics)
    advice = _advice(kind, config, len(train), stored_clips, is_swept)
    return Outcome(kind, metrics.chance, top1, loss, metrics.top1, metrics.top1_interval, advice, selected)


def _at_the_end(curve: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """(loss, percent of hits), averages over the last tenth of the steps, or over the last report if it is longer."""
    end = 0.9 * curve[-1][0]
    before = [0, *(step for step, *_ in curve)]
    last = [
        (step - since, loss, hits) for since, (step, loss, hits) in zip(before, curve, strict=False) if since >= end
    ]
    if not last:
        return curve[-1][1], curve[-1][2]
    total = sum(steps for steps, *_ in last)
    return sum(n * loss for n, loss, _ in last) / total, sum(n * hits for n, _, hits in last) / total


def _lift(top1: float, chance: float) -> float:
    """The share of the way from chance to 100 %. With one class, chance is 100 %: then 1 if all are right, else 0."""
    return (top1 - chance) / (100 - chance) if chance < 100 else float(top1 == 100)


def _kind(train: float, metrics: Metrics) -> str:
    """``train``: ``_lift`` of the training score.

    A low validation score counts as memorizing only if its interval is below the training score. With few videos, a
    low score can be chance. For the same reason a high score shows nothing if chance is within its interval.
    """
    val, val_at_most = (_lift(top1, metrics.chance) for top1 in (metrics.top1, metrics.top1_interval[1]))
    if max(train, val) < LITTLE:
        return "not_learned"
    if val < MUCH * train and val_at_most < train:
        return "memorized"
    if val < MUCH:
        return "partly_learned"
    is_chance = metrics.top1_interval[0] <= metrics.chance < 100  # within the interval; with one class it always is
    return "too_few" if is_chance else "learned"


def _advice(kind: str, config: RunConfig, num_videos: int, stored_clips: int | None, is_swept: bool) -> tuple[str, ...]:
    """What to try next; first what helps most often."""
    if kind == "learned":
        return ()
    training, clip = config.training, config.clip
    larger = "a larger encoder (evl backbones)"
    if config.backbone.name == EMBEDDED:
        larger = f"a larger encoder (such as {LARGE_BACKBONE})"
    epochs = training.steps * training.batch_size / max(1, num_videos)
    longer = f"more steps (training.steps={2 * training.steps})" if epochs < 60 else None
    segment = "segment sampling (clip.sampling=segment)" if clip.sampling == "dense" else None
    frames = f"more frames (clip.num_frames={2 * clip.num_frames})" if clip.num_frames < 16 else None
    clips = "a store with more clips of each video (10 or more)" if stored_clips in range(1, 5) else None
    sweep = "a store and a sweep (evl extract, evl sweep)" if stored_clips is None else "a sweep (evl sweep)"
    sweep = None if is_swept else sweep
    by_kind = {
        "memorized": (larger, clips, "more videos", sweep, segment, frames),
        "not_learned": ("evl check (are the labels right?)", longer, larger, sweep, segment, frames),
        "partly_learned": (longer, larger, segment, frames, sweep),
        "too_few": ("more validation videos",),
    }
    return tuple(text for text in by_kind[kind] if text is not None)
