"""Many heads (decoder and classifier) that learn side by side from the same features.

The backbone, or the reading of a store, is paid once for all; so are the neighbour maps, which hold no parameters.
Every head has its own optimizer, loss, learning rate, random numbers and scale of half precision, so that it becomes
what it would become alone on these batches.

Heads run one after the other, or, where they are of equal shape, together in one call (``evl.models.stacked``):
the same numbers, by fewer and larger products. ``heads_together`` has the rule.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evl.backbones import FrozenBackbone, Taps
from evl.backbones.base import tapped_blocks
from evl.config import RunConfig
from evl.distributed import without_autocast
from evl.models import EVLDecoder, VideoClassifier
from evl.models.crossframe import neighbour_maps
from evl.models.stacked import StackedClassifiers, changes_tokens, shape_of
from evl.training.optim import apply_gradients, learning_rate, make_optimizer, make_scaler
from evl.types import LayerFeatures, MappedFeatures

Features = Sequence[LayerFeatures | MappedFeatures]
# token maps of one block that heads make for themselves and that are in memory together
TOGETHER_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}


def with_taps(backbone: FrozenBackbone, taps: Taps) -> FrozenBackbone:
    """The same backbone, weights and all, for a model that reads only some of the blocks that are tapped."""
    chosen = copy.copy(backbone)
    chosen.taps = tapped_blocks(taps, backbone.spec.depth, backbone.spec.name)
    return chosen


class Head:
    """One setting: a model on the shared backbone, and how it learns. ``taps``: the shared blocks, if not its own.

    ``problem`` says why it was dropped; ``curve`` has (step, learning rate, mean loss, percent of hits) since the
    last point.
    """

    def __init__(self, name: str, config: RunConfig, model: VideoClassifier, taps: Sequence[int] | None = None):
        self.name, self.config, self.model = name, config, model
        self.places = tuple((taps or model.backbone.taps).index(block) for block in model.backbone.taps)
        device = next(model.decoder.parameters(), next(model.head.parameters())).device
        self.optimizer, self.scaler = make_optimizer(model, config.training), make_scaler(config.training, device)
        self.random = RandomStream(config.training.seed * 1_000_003, device)  # as a run alone seeds its dropout
        self.curve: list[tuple[int, float, float, float]] = []
        self.problem: str | None = None
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)  # of this step: loss, clips, hits
        self._since = self.totals.clone()

    @property
    def reads_maps(self) -> bool:
        decoder = self.model.decoder
        return isinstance(decoder, EVLDecoder) and any(one.temporal.cross_frame is not None for one in decoder.layers)

    def pick(self, features: Features) -> list:
        return [features[place] for place in self.places]

    def begin_step(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config.training)
        self.totals.zero_()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What to call ``backward`` of: scaled, and a share of the batch's mean. Counts the clips."""
        training = self.config.training
        loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=training.label_smoothing)
        self.totals[0] += loss.detach()
        self.totals[1] += len(labels)
        self.totals[2] += (logits.argmax(-1) == labels).sum()
        return self.scaler.scale(loss / training.batch_size)

    def end_step(self, step: int, *, has_clips: bool = True) -> None:
        """Without clips, as all were damaged, the weights stay as they are: as in a run alone."""
        if has_clips:
            apply_gradients(self.optimizer, self.scaler, self.totals[1], self.config.training)
        self._since += self.totals
        training = self.config.training
        if (step + 1) % training.log_every == 0 or step + 1 == training.steps:
            loss, clips, hits = self._since.tolist()
            self._since.zero_()
            seen = max(1.0, clips)
            self.curve.append((step + 1, learning_rate(step, training), loss / seen, 100 * hits / seen))
            finite = math.isfinite(loss) and all(p.isfinite().all() for p in self.model.trainable_parameters())
            if not finite:
                self.problem = f"loss {loss / seen:g} or weights not finite at step {step + 1}; lower training.lr"


class RandomStream:
    """``with stream:`` torch draws the numbers that a program of its own, seeded once, would draw."""

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        self.states = [torch.Generator(one).manual_seed(seed).get_state() for one in self._devices()]

    def _devices(self) -> list[torch.device]:
        return [torch.device("cpu"), *([self.device] if self.device.type == "cuda" else [])]

    def __enter__(self) -> None:
        self._outside = self._exchange(self.states)

    def __exit__(self, *_) -> None:
        self.states = self._exchange(self._outside)

    def _exchange(self, states: Sequence[Tensor]) -> list[Tensor]:
        before = [torch.get_rng_state()]
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            before.append(torch.cuda.get_rng_state(self.device))
            torch.cuda.set_rng_state(states[1], self.device)
        return before


class Alone:
    """One head by its own modules: the plain twin."""

    def __init__(self, head: Head):
        self.heads = [head]

    def logits(self, features: Features) -> Tensor:
        """(1,B,Y)"""
        head = self.heads[0]
        with head.random:
            return head.model.classify(head.pick(features))[None]

    def share_gradients(self) -> None:
        pass

    forget_gradients = release = share_gradients


class Together:
    """Heads of equal shape in one call."""

    def __init__(self, heads: Sequence[Head]):
        self.heads = list(heads)
        self.stack = StackedClassifiers([head.model for head in heads])

    def logits(self, features: Features) -> Tensor:
        """(G,B,Y)"""
        first = self.heads[0]
        return self.stack.classify(first.pick(features), self._dropout if first.model.training else None)

    def _dropout(self, g: int, drawn: Sequence[tuple[tuple[int, ...], float]]) -> list[Tensor]:
        head = self.heads[g]
        with head.random:
            return [F.dropout(torch.ones(shape, device=head.totals.device), rate) for shape, rate in drawn]

    def share_gradients(self) -> None:
        self.stack.share_gradients()

    def forget_gradients(self) -> None:
        self.stack.forget_gradients()

    def release(self) -> None:
        self.stack.release()


def heads_together(head: Head, tokens: Tensor) -> int:
    """How many heads of the shape of this one go through one call, at most.

    Where heads leave the tokens as they are, all: their queries read them in one product. Where each makes token maps
    of its own, products are as many and as large as one after the other, so only small ones gain, by fewer calls; and
    maps of one head at a time are kept for its backward pass.
    """
    if shape_of(head.model) is None:
        return 1
    if not changes_tokens(head.model):
        return 1 << 30
    budget = TOGETHER_BYTES.get(tokens.device.type, TOGETHER_BYTES["cpu"])
    return max(1, budget // (tokens.numel() * tokens.element_size()))


class Heads:
    """``learn`` from batch after batch. ``together``: None for ``heads_together``'s rule, or a number of heads."""

    def __init__(self, heads: Sequence[Head], *, together: int | None = None):
        self.heads = list(heads)
        self.together = together
        self._units: list[Alone | Together] | None = None

    @property
    def living(self) -> list[Head]:
        return [head for head in self.heads if head.problem is None]

    def train(self, mode: bool = True) -> None:
        for head in self.heads:
            head.model.train(mode)

    def learn(self, step: int, micro_batches: Iterable[tuple[Features | None, Tensor]]) -> None:
        """One step of every head on the same clips: features (or None if all were damaged) and labels (B)."""
        for head in self.living:
            head.begin_step(step)
        has_clips = False
        for features, labels in micro_batches:
            if features is not None:
                self._gather(features, labels)
                has_clips = True
            del features
        for head in self.living:
            head.end_step(step, has_clips=has_clips)
        for unit in self._units or ():
            unit.forget_gradients()
        if any(head.problem is not None for unit in self._units or () for head in unit.heads):
            self.release()

    def _gather(self, features: Features, labels: Tensor) -> None:
        features = self.share(features)
        labels = labels.to(features[0].tokens.device, non_blocking=True)
        for unit in self.units(features):
            logits = unit.logits(features)
            losses = [head.loss(one, labels) for head, one in zip(unit.heads, logits, strict=True)]
            torch.stack(losses).sum().backward()
            unit.share_gradients()

    @torch.no_grad()
    def classify(self, features: Features) -> Tensor:
        """Logits (G,B,Y) of all living heads, in their order."""
        features = self.share(features)
        by_head = {}
        for unit in self.units(features):
            by_head |= dict(zip(map(id, unit.heads), unit.logits(features), strict=True))
        return torch.stack([by_head[id(head)] for head in self.living])

    def share(self, features: Features) -> list:
        """Features with the neighbour maps that any head reads, made once."""
        mapped = {place for head in self.living if head.reads_maps for place in head.places}
        grid = self.heads[0].model.backbone.spec.grid
        shared = []
        with without_autocast(features[0].tokens.device):
            for place, one in enumerate(features):
                if place in mapped and not isinstance(one, MappedFeatures):
                    one = MappedFeatures(one.tokens, neighbour_maps(one.query, one.key, grid, one.tokens.dtype))
                shared.append(one)
        return shared

    def units(self, features: Features) -> list[Alone | Together]:
        """Who goes through one call with whom; kept from the first batch on."""
        if self._units is None:
            self._units = []
            alike: dict[tuple, list[Head]] = {}
            for head in self.living:
                alike.setdefault((shape_of(head.model) or id(head), head.places), []).append(head)
            for group in alike.values():
                limit = heads_together(group[0], features[group[0].places[-1]].tokens)
                if self.together is not None and shape_of(group[0].model) is not None:
                    limit = self.together
                for part in (group[start : start + limit] for start in range(0, len(group), limit)):
                    self._units.append(Together(part) if len(part) > 1 else Alone(part[0]))
        return self._units

    def release(self) -> None:
        """Every head in memory of its own; stacks are made anew when they are needed."""
        for unit in self._units or ():
            unit.release()
        self._units = None


class HeadView(nn.Module):
    """A head where a classifier is judged beside others: it looks at clips with the backbone that all share."""

    def __init__(self, heads: Heads, head: Head, backbone: FrozenBackbone):
        super().__init__()
        self.heads, self.head, self.backbone, self.model = heads, head, backbone, head.model
        self.card, self.class_names = head.model.card, head.model.class_names

    def features(self, clips) -> list:
        with torch.no_grad():
            return self.heads.share(self.backbone(clips))

    def classify(self, features: Features) -> Tensor:
        return self.model.classify(self.head.pick(features))
