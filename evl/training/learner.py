"""A learner: one model while it trains. Other learners may train beside it on the same features."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evl.config import RunConfig, TrainingConfig
from evl.errors import ConfigError, plural
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.precision import resolve_precision
from evl.streams import Batch, Features


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of step 0, 1, …

    It rises linearly over the steps of warm-up, then falls as half a cosine that would reach 0 at step ``steps``.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on all trainable parameters, as published.

    It is fused, so each step is one pass over memory. On the CPU this is several times as fast.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


class Learner:
    """A model while it trains: the only one of a run, or one of many.

    It has its own optimizer, loss, learning rate, random numbers and loss scaler. So it gets the same weights as if it
    had trained alone on these batches.

    ``taps``: the blocks whose features the stream gives, if they are more than the model's own. ``labels``: the class
    of each sample of the stream, if the learner learns other labels than the stream's. ``rank``: of this process,
    because each process draws its own dropout. Raises ConfigError if the decoder needs more clips at a time.
    """

    def __init__(
        self,
        name: str,
        config: RunConfig,
        model: Classifier,
        taps: Sequence[int] | None = None,
        *,
        labels: Sequence[int] | None = None,
        rank: int = 0,
    ):
        _require_clips(model, config.training)
        self.name, self.config, self.model = name, config, model
        own = model.encoder.taps
        self.places = tuple((taps or own).index(block) for block in own)
        self.device = next(model.parameters()).device
        self.labels = None if labels is None else torch.as_tensor(labels, device=self.device)
        self.optimizer = make_optimizer(model, config.training)
        is_scaled = resolve_precision(config.training.precision, self.device) == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=is_scaled)
        self.seed = config.training.seed * 1_000_003 + rank
        self.random = RandomStream(self.seed, self.device)
        # (step, learning rate, mean loss, percent of hits) every ``log_every`` steps, averages since the point before
        self.curve: list[tuple[int, float, float, float]] = []
        self.problem: str | None = None  # why the learner was dropped
        # of forward and backward passes and of steps; passes of several learners in one call count for the first
        self.seconds = 0.0
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, clips, hits of this step
        self._since = self.totals.clone()
        self._seen = self.totals[1].clone()

    @property
    def num_clips(self) -> int:
        """The number of clips that it has learned from, in all processes."""
        return int(self._seen)

    def has_point(self, done: int) -> bool:
        """Whether the curve has a point after ``done`` steps. It has none if no clip was read since the last point."""
        return bool(self.curve) and self.curve[-1][0] == done

    def pick(self, features: Features) -> list:
        """The features of the blocks that this learner's model reads."""
        return [features[place] for place in self.places]

    def labels_of(self, batch: Batch) -> Tensor:
        return batch.labels if self.labels is None else self.labels[list(batch.indices)]

    def begin_step(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config.training)
        self.totals.zero_()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss (a scalar) for ``backward``, and counts clips and hits. logits (B,Y), labels (B).

        It is the sum over the clips divided by the batch size, multiplied by the loss scale.
        """
        training = self.config.training
        loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=training.label_smoothing)
        self.totals[0] += loss.detach()
        self.totals[1] += len(labels)
        self.totals[2] += (logits.argmax(-1) == labels).sum()
        return self.scaler.scale(loss * (1 / training.batch_size))

    def end_step(self, step: int, world: World, *, has_clips: bool = True) -> None:
        """Does the optimizer's step with the mean over the clips of all processes. Without any clip there is no step.

        ``has_clips``: whether this process had clips. Only if it had none, the device is asked for the number of clips
        of all processes, because that waits for the device.
        """
        started, training = time.perf_counter(), self.config.training
        world.sum_(self.totals)
        if has_clips or self.totals[1].item():
            for parameter in self.model.trainable_parameters():  # no gradients: all clips of this process were damaged
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self._apply_gradients(world)
        self._since += self.totals
        self._seen += self.totals[1]
        if (step + 1) % training.log_every == 0 or step + 1 == training.steps:
            self._note_point(step)
        self.seconds += time.perf_counter() - started

    def _apply_gradients(self, world: World) -> None:
        """Adds up the gradients of all processes, changes the weights by them, and clears them."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if world.size > 1:
            gradients = [parameter.grad for parameter in parameters]
            flat = world.sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        training = self.config.training
        self.scaler.unscale_(self.optimizer)
        # The losses were divided by the batch size. Damaged clips are missing in the sum, so the mean is over the clips
        # that were read; the factor is exactly 1 if none is missing.
        factor = (training.batch_size / self.totals[1].clamp(min=1)).float()
        torch._foreach_mul_([parameter.grad for parameter in parameters if parameter.grad is not None], factor)
        if training.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, training.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _note_point(self, step: int) -> None:
        loss, clips, hits = self._since.tolist()  # waits for the device
        self._since.zero_()
        if not clips:
            return
        self.curve.append((step + 1, learning_rate(step, self.config.training), loss / clips, 100 * hits / clips))
        if not math.isfinite(loss):
            self.problem = f"the loss is {loss / clips:g} at step {step + 1}; lower training.lr, or check the data"
        elif not self.is_finite():
            self.problem = f"weights are not finite after step {step + 1}; lower training.lr"

    def is_finite(self) -> bool:
        # buffers too: running statistics that are not finite would spoil every later score
        values = (*self.model.trainable_parameters(), *self.model.decoder.buffers())
        return all(value.isfinite().all() for value in values)

    def state(self) -> dict:
        """All that the learner needs to go on after a stop."""
        return {
            "name": self.name,
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": self.random.states,
            "since": self._since.cpu(),
            "seen": self._seen.cpu(),
            "curve": self.curve,
            "problem": self.problem,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict, step: int, world: World) -> None:
        """Loads ``state``, which ``checkpoint.load_checkpoint`` has compared with this learner.

        A single process goes on with its random numbers. Several processes, or another kind of device than before,
        seed new ones by ``step``.
        """
        self.model.load_trainable_state(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if world.size > 1 or len(state["random"]) != len(self.random.states):
            self.random = RandomStream(self.seed + step, self.device)
        else:
            self.random.states = state["random"]
        self._since, self._seen = state["since"].to(self.device), state["seen"].to(self.device)
        self.curve, self.problem, self.seconds = state["curve"], state["problem"], state["seconds"]


def _require_clips(model: Classifier, training: TrainingConfig) -> None:
    """Raises ConfigError if the decoder learns nothing from as few clips at a time."""
    size, least = training.batch_size // training.accumulation, getattr(model.decoder, "least_clips", 1)
    if size < least:
        raise ConfigError(
            f"training.batch_size={training.batch_size} with training.accumulation={training.accumulation} gives "
            f"batches of {plural(size, 'clip')}; this decoder compares the clips of a batch, and needs at least "
            f"{least}; model.decoder=evl, and model.side_readout=query, take single clips"
        )


class RandomStream:
    """Random numbers of one learner. Inside ``with stream:`` torch draws from them, outside from its global ones."""

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        self.devices = [torch.device("cpu"), *([device] if device.type == "cuda" else [])]
        self.states = [torch.Generator(device).manual_seed(seed).get_state() for device in self.devices]

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
