"""Learners side by side on the same features.

The encoder runs, or the store is read, once for all of them. The neighbor maps have no parameters, so they also are
made once. Learners run one after the other. Learners of equal shape can also run together in one call
(``evl.models.stacked``), which gives the same numbers by fewer and larger products; see ``learners_together``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from evl.backbones import FrozenBackbone, Taps
from evl.backbones.base import tapped_blocks
from evl.models.crossframe import share_maps
from evl.models.stacked import StackedClassifiers, changes_tokens, shape_of
from evl.runtime.distributed import World
from evl.streams import Batch, Features
from evl.training.learner import Learner
from evl.types import EncoderFacts, MappedFeatures

# most bytes of the token maps that learners in one call make of one block
TOGETHER_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}


def with_taps(encoder: FrozenBackbone | EncoderFacts, taps: Taps) -> FrozenBackbone | EncoderFacts:
    """The same encoder, with the same weights in memory, for a model that reads only some of its tapped blocks."""
    chosen = tapped_blocks(taps, encoder.spec.depth, encoder.spec.name)
    if isinstance(encoder, EncoderFacts):
        return replace(encoder, taps=chosen)
    twin = copy.copy(encoder)
    twin.taps = chosen
    return twin


class Alone:
    """One learner that runs by its own modules: the plain twin of ``Together``."""

    def __init__(self, learner: Learner):
        self.learners = [learner]

    def logits(self, features: Features) -> Tensor:
        """(1,B,Y)"""
        learner = self.learners[0]
        with learner.random:
            return learner.model.classify(learner.pick(features))[None]

    def share_gradients(self) -> None:
        pass

    forget_gradients = release = share_gradients


class Together:
    """Learners of equal shape that run in one call."""

    def __init__(self, learners: Sequence[Learner]):
        self.learners = list(learners)
        self.stack = StackedClassifiers([learner.model for learner in learners])

    def logits(self, features: Features) -> Tensor:
        """(G,B,Y)"""
        first = self.learners[0]
        return self.stack.classify(first.pick(features), self._dropout if first.model.training else None)

    def _dropout(self, g: int, drawn: Sequence[tuple[tuple[int, ...], float]]) -> list[Tensor]:
        learner = self.learners[g]
        with learner.random:
            return [F.dropout(torch.ones(shape, device=learner.device), rate) for shape, rate in drawn]

    def share_gradients(self) -> None:
        self.stack.share_gradients()

    def forget_gradients(self) -> None:
        self.stack.forget_gradients()

    def release(self) -> None:
        self.stack.release()


def learners_together(learner: Learner, tokens: Tensor) -> int:
    """The most learners of this learner's shape that should run in one call.

    If learners do not change the tokens, all of them: their queries read the tokens in one product. If each makes token
    maps of its own, one call needs as much arithmetic as one call per learner. Then only small maps gain, and all of
    these maps are in memory until the backward pass; ``TOGETHER_BYTES`` limits them.
    """
    if learner.labels is not None or shape_of(learner.model) is None:
        return 1
    if not changes_tokens(learner.model):
        return 1 << 30
    budget = TOGETHER_BYTES.get(tokens.device.type, TOGETHER_BYTES["cpu"])
    return max(1, budget // (tokens.numel() * tokens.element_size()))


class Learners:
    """All learners of one training, and their steps.

    ``together``: how many learners of equal shape run in one call; None: as ``learners_together`` decides. ``pool``:
    threads in which units learn at the same time. Each must compute with one core only, and learners may not draw
    random numbers.
    """

    def __init__(self, learners: Sequence[Learner], *, together: int | None = None, pool: Executor | None = None):
        self.all = list(learners)
        self.together = together
        self._map: Callable = map if pool is None else pool.map
        self._units: list[Alone | Together] | None = None

    @property
    def living(self) -> list[Learner]:
        return [learner for learner in self.all if learner.problem is None]

    def train(self, mode: bool = True) -> None:
        for learner in self.all:
            learner.model.train(mode)

    def step(self, step: int, batches: Iterable[Batch], world: World) -> None:
        """One step of every living learner, on the same clips."""
        for learner in self.living:
            learner.begin_step(step)
        has_clips = False
        for batch in batches:
            if batch.features is not None:
                has_clips = True
                self._learn(batch)
            elif world.size > 1:
                self._wait_for_others(batch)
            del batch
        list(self._map(lambda learner: learner.end_step(step, world, has_clips=has_clips), self.living))
        for unit in self._units or ():
            unit.forget_gradients()
        if any(learner.problem is not None for unit in self._units or () for learner in unit.learners):
            self.release()

    def _learn(self, batch: Batch) -> None:
        features = self.share(batch.features)
        list(self._map(lambda unit: self._backward(unit, features, batch), self.units(features)))

    def _wait_for_others(self, batch: Batch) -> None:
        """Computes with no clips, for models whose norms take statistics over the clips of all processes.

        ``batch`` has none, because they were all damaged. The other processes would wait for these statistics forever.
        """
        for learner in self.living:
            if any(getattr(module, "together", False) for module in learner.model.modules()):
                spec, num_frames = learner.model.encoder.spec, learner.config.clip.num_frames
                tokens = torch.zeros(0, num_frames, spec.num_tokens, spec.width, device=learner.device)
                features = [MappedFeatures(tokens, ())] * (1 + max(learner.places))
                self._backward(Alone(learner), features, batch)

    @staticmethod
    def _backward(unit: Alone | Together, features: Features, batch: Batch) -> None:
        started = time.perf_counter()
        logits = unit.logits(features)
        losses = [
            learner.loss(own, learner.labels_of(batch)) for learner, own in zip(unit.learners, logits, strict=True)
        ]
        torch.stack(losses).sum().backward()
        unit.share_gradients()
        unit.learners[0].seconds += time.perf_counter() - started

    def share(self, features: Features) -> Features:
        """The features, with the neighbor maps of each block for which some learner reads them."""
        if len(self.living) == 1:  # its decoder makes the maps block by block, in less memory
            return features
        mapped = {place for learner in self.living if learner.model.reads_maps for place in learner.places}
        mapped -= {place for learner in self.living if learner.model.reads_query_key for place in learner.places}
        return share_maps(features, mapped, self.all[0].model.encoder.spec.grid)

    def units(self, features: Features) -> list[Alone | Together]:
        """The groups of learners that run in one call. They are made for the first batch and kept."""
        if self._units is None:
            self._units = []
            alike: dict[tuple, list[Learner]] = {}
            for learner in self.living:
                alike.setdefault((shape_of(learner.model) or id(learner), learner.places), []).append(learner)
            for group in alike.values():
                limit = learners_together(group[0], features[group[0].places[-1]].tokens)
                if self.together is not None and shape_of(group[0].model) is not None:
                    limit = self.together
                for part in (group[start : start + limit] for start in range(0, len(group), limit)):
                    self._units.append(Together(part) if len(part) > 1 else Alone(part[0]))
        return self._units

    def release(self) -> None:
        """Gives every learner memory of its own again. The next batch makes new units."""
        for unit in self._units or ():
            unit.release()
        self._units = None
