"""Decoders of several kinds, trained and judged on the frozen features of clips that are decoded once.

Every decoder is a learner on the same stream, in its own thread. Each gets the same numbers as if it were trained
alone: threads share only torch's random numbers, and these are not used, because no decoder here has dropout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.config import ClipConfig, RunConfig
from evl.data.dataset import EvaluationViews, Files, collate_views
from evl.data.loader import read_batches
from evl.demo.results import VariantResult
from evl.errors import RunError
from evl.evaluation import Evaluation, evaluate_views, write_evaluation
from evl.models import Classifier
from evl.models.registry import setting_of, taps_of
from evl.runtime.distributed import World
from evl.runtime.progress import Progress
from evl.saving import build_classifier, save_model
from evl.streams import Subset
from evl.streams.memory import InMemory
from evl.training.learner import Learner
from evl.training.learners import Learners, with_taps
from evl.training.loop import fit
from evl.training.run_folder import RunFolder
from evl.types import Preprocessing, Sample

# half the memory of float32; the rounding error is a thirtieth of the step between two values of a byte
PIXELS = torch.float16
ALONE = World(0, 1, torch.device("cpu"))


def read_clips(
    samples: Sequence[Sample],
    clip: ClipConfig,
    preprocessing: Preprocessing,
    *,
    num_workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The view by which each video will be judged: normalized pixels (n,T,3,H,W) of ``PIXELS``, in order.

    Sampling, decoding and resizing are those of ``evl evaluate`` with 1x1 views. Raises RunError for a video that
    cannot be read.
    """
    files = Files(samples, verify=False)
    dataset = EvaluationViews(files, None, clip, preprocessing, num_clips=1, num_crops=1)
    clips = torch.empty(len(samples), clip.num_frames, 3, *preprocessing.image_size, dtype=PIXELS)
    batches = [range(start, min(start + 32, len(samples))) for start in range(0, len(samples), 32)]
    done = 0
    for batch in read_batches(
        dataset, batches, num_workers=num_workers, device=torch.device("cpu"), collate=collate_views
    ):
        for index, reason in batch.damaged.items():
            raise RunError(f"{samples[index].path}: a video of the demo cannot be read ({reason}); try again")
        clips[list(batch.indices)] = batch.clips.to(PIXELS)
        done += len(batch.indices)
        progress(done)
    return clips


class Contender:
    """One variant on one task.

    Args:
        samples: The videos of all clips; the first ``num_training`` are to train on.
        taps: The blocks whose features the learner will get.

    ``learner`` is None if the variant is not trained (zero-shot). ``seconds``: time of training and judging.
    """

    def __init__(
        self,
        variant: str,
        task: str,
        config: RunConfig,
        samples: Sequence[Sample],
        backbone: FrozenBackbone,
        num_training: int,
        taps: Sequence[int],
    ):
        self.variant, self.task, self.config, self.samples = variant, task, config, samples
        names = sorted({sample.label for sample in samples})
        torch.manual_seed(config.training.seed)
        own = with_taps(backbone, taps_of(config.model))
        self.model: Classifier = build_classifier(config, names, backbone=own)
        labels = [names.index(sample.label) for sample in samples[:num_training]]
        self.learner = (
            Learner(f"{variant} on {task}", config, self.model, taps, labels=labels) if self.trainable else None
        )
        self._judging_seconds = 0.0

    @property
    def trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.model.trainable_parameters())

    @property
    def seconds(self) -> float:
        return self._judging_seconds + (self.learner.seconds if self.learner is not None else 0.0)

    @property
    def has_dropout(self) -> bool:
        return bool(setting_of(self.config.model, "mlp_dropout") or self.config.model.head_dropout)

    def judge(self, features: InMemory, rows: Sequence[int]) -> Evaluation:
        """Judges the clips ``rows`` by their features, one view each."""
        started = time.perf_counter()
        self.model.eval()
        stream = Subset(features.of(self.samples), rows)
        evaluation = evaluate_views([self.model], stream, batch_size=50, world=ALONE)[0]
        self._judging_seconds += time.perf_counter() - started
        return evaluation


def train_contenders(
    contenders: Sequence[Contender],
    features: InMemory,
    rows: Sequence[int],
    pool: Executor | None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains all contenders on the clips ``rows``, on the same batches, for the steps of the first one's config.

    ``pool``: trains them side by side; None, as dropout needs it: one after another.
    """
    assert pool is None or not any(one.has_dropout for one in contenders), "threads share torch's random numbers"
    learners = Learners([one.learner for one in contenders], together=1, pool=pool)

    def report(reached: Progress) -> None:
        progress(reached.step)

    fit(Subset(features, rows), learners, contenders[0].config.training, ALONE, progress=report)


def save_run(
    one: Contender, evaluation: Evaluation, folder: Path, train_rows: Sequence[int], rows: Sequence[int]
) -> None:
    """Writes a usual run folder, which ``evl predict``, ``evl evaluate`` and ``evl.load`` take."""
    run = RunFolder(folder)
    train_samples, judged = ([one.samples[row] for row in some] for some in (train_rows, rows))
    run.create(one.config, one.model.class_names, train_samples, judged, {})
    for step, rate, loss, top1 in one.learner.curve:
        run.log({"step": step, "lr": rate, "loss": loss, "train_top1": top1})
    run.log({"step": one.config.training.steps, "final": evaluation.to_dict()})
    write_evaluation(folder, evaluation)
    save_model(one.model, folder, scores=evaluation.to_dict())


def result_of(one: Contender, evaluation: Evaluation, folder: Path | None) -> VariantResult:
    seed = one.config.training.seed
    curve = tuple((step, loss, top1) for step, _, loss, top1 in one.learner.curve) if one.learner is not None else ()
    return VariantResult(one.variant, one.task, seed, evaluation, curve, one.trainable, one.seconds, folder)
