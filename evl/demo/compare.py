"""Decoders of several kinds, trained and judged on the same frozen features.

Features are there already, so training is all there is: gather a batch of them once, and let every decoder learn from
it, side by side, a thread each. Their numbers are those of training alone: each has its own optimizer, and the one
thing that they would share, torch's random numbers, is not used, because nothing here has dropout.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from evl.assembly import build_classifier, save_model
from evl.backbones import FrozenBackbone
from evl.config import RunConfig
from evl.data.loader import StepSampler
from evl.demo.features import StoredFeatures
from evl.demo.results import Outcome
from evl.errors import RunError
from evl.evaluation import Evaluation, compute_metrics, write_evaluation
from evl.training.optim import learning_rate, make_optimizer
from evl.training.run_folder import RunFolder
from evl.types import Prediction, Sample

POINTS = 40  # of a curve


class Contender:
    """One variant on one task: an untrained model, and how it is to be trained. ``samples``: of all clips there are."""

    def __init__(self, variant: str, task: str, config: RunConfig, samples: Sequence[Sample], backbone: FrozenBackbone):
        self.variant, self.task, self.config, self.samples = variant, task, config, samples
        names = sorted({sample.label for sample in samples})
        self.labels = torch.tensor([names.index(sample.label) for sample in samples])
        torch.manual_seed(config.training.seed)
        self.model = build_classifier(config, names, backbone=backbone)
        assert config.model.mlp_dropout == config.model.head_dropout == 0, "threads share torch's random numbers"
        self.optimizer = make_optimizer(self.model, config.training) if self.trainable else None  # None: zero-shot
        self.curve: list[tuple[int, float, float]] = []
        self.seconds = 0.0
        self._since: list[tuple[float, float]] = []  # loss and share of hits of every step since the last point

    @property
    def trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.model.trainable_parameters())

    def learn(self, step: int, features: Sequence, rows: Sequence[int]) -> None:
        """One step of AdamW on the features of the clips ``rows``."""
        started, training = time.perf_counter(), self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        labels = self.labels[rows]
        logits = self.model.classify(features)
        loss = F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._since.append((loss.item(), (logits.argmax(-1) == labels).float().mean().item()))
        if (step + 1) % math.ceil(training.steps / POINTS) == 0 or step + 1 == training.steps:
            loss, hits = (sum(values) / len(self._since) for values in zip(*self._since, strict=True))
            if not math.isfinite(loss):
                raise RunError(f"the loss of {self.variant} on {self.task} is {loss} at step {step + 1}")
            self.curve.append((step + 1, loss, 100 * hits))
            self._since = []
        self.seconds += time.perf_counter() - started


def train(
    contenders: Sequence[Contender],
    features: StoredFeatures,
    rows: Sequence[int],
    pool: Executor,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains all of them on the clips ``rows``, on the same batches: as many as the first one's config says."""
    training = contenders[0].config.training
    order = StepSampler(
        len(rows), batch_size=training.batch_size, first_step=0, last_step=training.steps, seed=training.seed
    )
    for one in contenders:
        one.model.train()
    for step, batch in enumerate(order):
        picked = [rows[place] for _, place in batch]
        gathered = features.batch(picked, pool)
        list(pool.map(Contender.learn, contenders, repeat(step), repeat(gathered), repeat(picked)))
        progress(step + 1)


@torch.no_grad()
def judge(one: Contender, features: StoredFeatures, rows: Sequence[int], at_once: int = 50) -> Evaluation:
    """The clips ``rows``, each seen once, by their features."""
    started = time.perf_counter()
    one.model.eval()
    scores: list[Tensor] = []
    for start in range(0, len(rows), at_once):
        logits = one.model.classify(features.batch(rows[start : start + at_once]))
        scores.extend(logits.double().softmax(-1))
    predictions = tuple(
        Prediction(one.samples[row].path, tuple(score.tolist()), int(one.labels[row]))
        for row, score in zip(rows, scores, strict=True)
    )
    names = one.model.class_names
    protocol = one.model.card.protocol(len(predictions))
    one.seconds += time.perf_counter() - started
    return Evaluation(compute_metrics(predictions, len(names)), predictions, {}, protocol, names)


def save_run(
    one: Contender, evaluation: Evaluation, folder: Path, train_rows: Sequence[int], rows: Sequence[int]
) -> None:
    """A run folder like any other: for ``evl predict``, ``evl evaluate``, ``evl.load``, and to read."""
    run = RunFolder(folder)
    train_samples, judged = ([one.samples[row] for row in some] for some in (train_rows, rows))
    run.create(one.config, one.model.class_names, train_samples, judged, {})
    for step, loss, top1 in one.curve:
        rate = learning_rate(step - 1, one.config.training)
        run.log({"step": step, "lr": rate, "loss": loss, "train_top1": top1})
    run.log({"step": one.config.training.steps, "final": evaluation.to_dict()})
    write_evaluation(folder, evaluation)
    save_model(one.model, folder, scores=evaluation.to_dict())


def outcome(one: Contender, evaluation: Evaluation, folder: Path | None) -> Outcome:
    seed, curve = one.config.training.seed, tuple(one.curve)
    return Outcome(one.variant, one.task, seed, evaluation, curve, one.trainable, one.seconds, folder)
