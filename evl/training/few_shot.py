"""Few-shot: heads trained on K videos a class, drawn again and again, from a store of features.

A head on a frozen backbone is small, and what the backbone says of a few videos fits into memory: each run takes
seconds. Nothing is tuned here, and no step is chosen: every head is the one after its last step.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from evl.assembly import build_classifier, save_model
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.loader import StepSampler
from evl.data.manifest import write_manifest
from evl.distributed import World, autocast, join_world, resolve_precision
from evl.errors import ConfigError, RunError
from evl.evaluation import Evaluation, evaluate_heads, mean_interval, write_evaluation
from evl.evaluation.evaluate import labels_of
from evl.evaluation.stored import backbone_for
from evl.features.batches import StoredTrainingClips
from evl.features.store import FeatureStore
from evl.files import expand_home
from evl.models import VideoClassifier
from evl.training.few_shot_report import FewShotResult, Shots, write_few_shot
from evl.training.loop import Progress
from evl.training.optim import make_optimizer, make_scaler, train_step
from evl.training.run import with_steps
from evl.training.sources import open_store
from evl.types import MappedFeatures

log = logging.getLogger("evl")
KEPT_BYTES = 2 << 30  # features of training clips that stay in memory, for all runs


def few_shot(
    config: RunConfig,
    out: str | Path,
    *,
    shots: Sequence[int],
    draws: int = 5,
    keep_runs: bool = False,
    device: str | None = None,
    progress: Callable[[Progress], None] = lambda report: None,
) -> FewShotResult:
    """For each K of ``shots``, ``draws`` fresh heads of ``config``, each on K training videos a class of the store at
    ``config.data.features``, judged on the store's validation videos; ``shots.json`` and ``shots.png`` in ``out``.

    Draw d of K takes its videos by the generator of (seed, K, d), and its initial values, order and dropout by seed +
    d. Batches are of ``training.batch_size``, or of all the videos there are where they are fewer; steps as of any run
    (``with_steps``: 30 epochs, but at least 200). ``keep_runs``: heads and predictions too. Under torchrun draws are
    shared among processes.
    """
    folder = expand_home(Path(out))
    with join_world(device) as world:
        config, store = _checked(config, shots, draws)
        world.only_main(lambda: _make(folder))
        heads = _Heads(config, store, world)
        rows, judged = [], None
        for number, k in enumerate(shots):
            heads.tell_small_classes(k)
            mine = list(range(world.rank, draws, world.size))
            models, seconds = [], []
            for place, draw in enumerate(mine):
                started = time.perf_counter()
                runs_before, runs = number * len(mine) + place, len(shots) * len(mine)
                note = _Note(progress, runs_before, runs, f"{k} videos a class, draw {draw + 1}")
                models.append(heads.train(k, draw, note))
                seconds.append(time.perf_counter() - started)
            evaluations = heads.judge(models, progress) if models else []
            for draw, model, evaluation in zip(mine, models, evaluations, strict=True) if keep_runs else ():
                heads.keep(folder / "runs" / f"{k:02d}_shots_draw_{draw + 1}", k, draw, model, evaluation)
            found = dict(zip(mine, zip((one.metrics.top1 for one in evaluations), seconds, strict=True), strict=True))
            for others in world.gather(found):
                found |= others
            top1, seconds = zip(*(found[draw] for draw in range(draws)), strict=True)
            training, count = heads.settings(k).training, len(heads.draw(k, 0))
            row = Shots(k, top1, *mean_interval(top1), count, training.steps, training.batch_size, seconds)
            spread = f"95 % interval of the mean {row.interval}" if row.has_interval else row.interval
            log.info("%d videos a class: top-1 %.2f %%, %s", k, row.mean, spread)
            rows.append(row)
            judged = judged or world.gather(evaluations[:1])[0][0]
        result = FewShotResult(tuple(rows), draws, judged.protocol, judged.damaged, folder, judged.metrics.chance)
        world.only_main(lambda: write_few_shot(result, config))
    return result


def draw_videos(
    labels: Sequence[int], num_classes: int, shots: int, *, seed: int, draw: int, without: Sequence[int] = ()
) -> list[int]:
    """``shots`` videos of each class, or all it has, by the generator of (seed, shots, draw); none of ``without``."""
    generator = np.random.default_rng([seed, shots, draw])
    chosen: list[int] = []
    excluded = set(without)
    for y in range(num_classes):
        own = [index for index, label in enumerate(labels) if label == y and index not in excluded]
        chosen += sorted(int(index) for index in generator.permutation(own)[:shots])
    return chosen


class _Heads:
    """Fresh heads on one store; what the backbone says of a clip is made once for all of them."""

    def __init__(self, config: RunConfig, store: FeatureStore, world: World):
        self.config, self.store, self.world = config, store, world
        self.alone = World(0, 1, world.device)  # each head is one process's
        self.split = store.splits["train"]
        self.labels = labels_of(self.split.samples, store.class_names)
        self.backbone = backbone_for(config.model, store).to(world.device)
        frames, seed = store.description.num_frames("train"), config.training.seed
        reader = StoredTrainingClips(self.split, self.labels, config.clip, frames, seed, self.backbone.taps)
        varies = frames != config.clip.num_frames
        self.features = _KeptFeatures(self.backbone, reader, config.training.precision, world.device, varies)

    def draw(self, shots: int, draw: int) -> list[int]:
        seed, names = self.config.training.seed, self.store.class_names
        return draw_videos(self.labels, len(names), shots, seed=seed, draw=draw, without=tuple(self.split.damaged))

    def settings(self, shots: int) -> RunConfig:
        """The config of a run: no larger batches than there are videos, nor larger micro-batches than the config's."""
        training, count = self.config.training, len(self.draw(shots, 0))
        batch_size = min(training.batch_size, count)
        least = math.ceil(batch_size / max(1, training.batch_size // training.accumulation))
        accumulation = next(n for n in range(least, batch_size + 1) if batch_size % n == 0)
        own = replace_settings(self.config, training={"batch_size": batch_size, "accumulation": accumulation})
        return with_steps(own, count)

    def train(self, shots: int, draw: int, note: Callable[[int, int], None]) -> VideoClassifier:
        config, chosen = self.settings(shots), self.draw(shots, draw)
        training, device = config.training, self.world.device
        seed = training.seed + draw
        model = build_classifier(config, self.store.class_names, backbone=self.backbone, seed=seed).to(device)
        precision = resolve_precision(training.precision, device)
        described = f"{shots} videos a class of {Path(self.store.path).name}, draw {draw + 1}"
        model.card = replace(model.card, precision=precision, data=described)
        optimizer, scaler = make_optimizer(model, training), make_scaler(training, device)
        sampler = StepSampler(
            len(chosen), batch_size=training.batch_size, accumulation=training.accumulation, first_step=0,
            last_step=training.steps, seed=seed,
        )  # fmt: skip
        keys, head = iter(sampler), _OnFeatures(model)
        for step in range(training.steps):
            parts = []
            for _ in range(training.accumulation):
                mine = [(epoch, chosen[place]) for epoch, place in next(keys)]
                parts.append((self.features.of(mine), torch.tensor([self.labels[index] for _, index in mine])))
            totals = train_step(head.train(), optimizer, scaler, parts, step, training, self.alone)
            note(step + 1, training.steps)
        if not math.isfinite(loss := float(totals[0])):
            raise RunError(f"the loss of {described} is {loss} at step {training.steps}; lower training.lr")
        return model.eval()

    def judge(self, models: Sequence[VideoClassifier], progress: Callable[[Progress], None]) -> list[Evaluation]:
        total, done = len(self.store.splits["val"]), 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(Progress("evaluating", done, total))

        size, precision = self.config.evaluation.batch_size, self.config.training.precision
        options = dict(batch_size=size, precision=precision, world=self.alone, progress=count)
        options["trained_on"] = self.split.samples
        return evaluate_heads(models, self.store, "val", **options)

    def keep(self, folder: Path, shots: int, draw: int, model: VideoClassifier, evaluation: Evaluation) -> None:
        write_evaluation(folder, evaluation)
        write_manifest(folder / "train.csv", [self.split.samples[index] for index in self.draw(shots, draw)])
        save_model(model, folder, scores=evaluation.to_dict())

    def tell_small_classes(self, shots: int) -> None:
        usable = [y for index, y in enumerate(self.labels) if index not in self.split.damaged]
        counts = np.bincount(usable, minlength=len(self.store.class_names))
        if (small := np.flatnonzero(counts < shots)).size:
            log.warning(
                "%d of %d classes have fewer than %d training videos, such as %r with %d: all they have are taken",
                len(small), len(counts), shots, self.store.class_names[small[0]], counts[small[0]],
            )  # fmt: skip


class _OnFeatures(nn.Module):
    """A classifier that takes what its backbone would say."""

    def __init__(self, model: VideoClassifier):
        super().__init__()
        self.model = model

    def forward(self, features: _Features) -> Tensor:
        return self.model.classify(features.layers)


@dataclass(frozen=True)
class _Features:
    """What a decoder takes, of a batch, on its device."""

    layers: Sequence[MappedFeatures]

    def to(self, device: torch.device, non_blocking: bool = False) -> _Features:
        return self


class _KeptFeatures:
    """The features of training clips: read and made when they are first asked for, and kept as long as they fit."""

    def __init__(self, backbone, reader: StoredTrainingClips, precision: str, device: torch.device, varies: bool):
        self.backbone, self.reader, self.precision, self.device = backbone, reader, precision, device
        self.varies = varies  # whether a stored clip gives other frames in each epoch
        self.kept: dict[tuple[int, int], list[MappedFeatures]] = {}
        self.free_bytes = KEPT_BYTES

    def of(self, keys: Sequence[tuple[int, int]]) -> _Features:
        """Of (epoch, index) each, in that order."""
        names = [self._name(*key) for key in keys]
        new = {name: key for name, key in zip(names, keys, strict=True) if name not in self.kept}
        made = dict(zip(new, self._make(list(new.values())), strict=True)) if new else {}
        for name, layers in made.items():
            size = sum(x.numel() * x.element_size() for one in layers for x in (one.tokens, *one.maps))
            if size <= self.free_bytes:
                self.free_bytes -= size
                self.kept[name] = layers
        clips = [made.get(name) or self.kept[name] for name in names]
        return _Features([_joined(layers) for layers in zip(*clips, strict=True)])

    def _name(self, epoch: int, index: int) -> tuple[int, int]:
        return (epoch if self.varies else epoch % self.reader.split.num_clips(index)), index

    def _make(self, keys: list[tuple[int, int]]) -> list[list[MappedFeatures]]:
        clips = self.reader.read(keys).pixels.to(self.device)
        with torch.no_grad(), autocast(self.precision, self.device):
            layers = self.backbone(clips)
        return [
            [MappedFeatures(x.tokens[i : i + 1].clone(), [m[:, i : i + 1].clone() for m in x.maps]) for x in layers]
            for i in range(len(keys))
        ]


def _joined(clips: Sequence[MappedFeatures]) -> MappedFeatures:
    """One block's features of several clips: tokens (1,T,L,D) each -> (B,T,L,D), maps likewise in their dimension 1."""
    maps = [torch.cat(parts, 1) for parts in zip(*(one.maps for one in clips), strict=True)]
    return MappedFeatures(torch.cat([one.tokens for one in clips]), maps)


class _Note:
    """Steps of one run of many, told as steps of all."""

    def __init__(self, progress: Callable[[Progress], None], before: int, total: int, note: str):
        self.progress, self.before, self.total, self.note = progress, before, total, note

    def __call__(self, step: int, steps: int) -> None:
        self.progress(Progress("training", self.before * steps + step, self.total * steps, self.note))


def _checked(config: RunConfig, shots: Sequence[int], draws: int) -> tuple[RunConfig, FeatureStore]:
    """(config, its store), or what cannot be."""
    if config.data.features is None:
        raise ConfigError(
            "few-shot runs go from a store of features: make one with evl extract --data DATA --out STORE, then give "
            "--features STORE"
        )
    if not shots or list(shots) != sorted(set(shots)) or shots[0] < 1:
        raise ConfigError(f"--shots {','.join(map(str, shots))}: expected numbers of videos that rise, such as 1,2,4,8")
    if not 2 <= draws <= 20:
        raise ConfigError(f"--draws {draws}: an interval over draws takes 2 to 20 of them")
    if config.training.init is not None:
        raise ConfigError("few-shot trains fresh heads: leave out --init, which may know these videos already")
    config, store = open_store(config)
    if "val" not in store.splits:
        raise ConfigError(f"{store.path} has no validation videos to judge few-shot runs by")
    return config, store


def _make(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already and not empty; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: no folder can be made here ({error.strerror or error})") from None
