"""AdamW, a cosine to zero, and one step over a global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evl.config import TrainingConfig
from evl.distributed import World, autocast, resolve_precision

if TYPE_CHECKING:
    from evl.features import StoredClips


def learning_rate(step: int, config: TrainingConfig) -> float:
    """At step 0, 1, …: linear warm-up over ``warmup_steps``, then half a cosine that would reach 0 at ``steps``."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Weight decay on all trainable parameters, as published. Fused is one pass over memory: on the CPU
    several times as fast, which a step on stored features notices."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def make_scaler(config: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=resolve_precision(config.precision, device) == "fp16")


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: Sequence[tuple[Tensor | StoredClips, Tensor]],
    step: int,
    config: TrainingConfig,
    world: World,
) -> Tensor:
    """One optimizer step over the global batch; returns [sum of losses, clips, hits] over all processes.

    ``micro_batches``: this process's (clips (B,T,C,H,W), or their stored features; labels (B)). Where all were damaged
    there are no labels, and any one clip stands in. The gradient is that of the mean loss over all clips of the global
    batch, however it is cut up and whatever was damaged; if it has not one clip, no step is taken.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    totals = torch.zeros(3, dtype=torch.float64, device=world.device)
    for number, (clips, labels) in enumerate(micro_batches):
        last = number == len(micro_batches) - 1
        weight = 1.0
        if not len(labels):  # other processes wait for this one's gradients: give them zeros
            labels, weight = torch.zeros(1, dtype=torch.long), 0.0
        clips, labels = (x.to(world.device, non_blocking=True) for x in (clips, labels))
        with nullcontext() if last or world.size == 1 else model.no_sync():
            with autocast(config.precision, world.device):
                logits = model(clips)
            losses = nn.functional.cross_entropy(
                logits.float(), labels, reduction="sum", label_smoothing=config.label_smoothing
            )
            scaler.scale(losses * (weight / config.batch_size)).backward()
        hits = (logits.argmax(-1) == labels).sum()
        totals[0] += weight * losses.detach()
        totals[1] += weight * len(labels)
        totals[2] += weight * hits
    world.sum_(totals)
    # asked of the device only where this process had none: if there is none at all, every process asks
    if not any(len(labels) for _, labels in micro_batches) and not totals[1].item():
        optimizer.zero_grad(set_to_none=True)
        return totals
    apply_gradients(optimizer, scaler, totals[1], config, world.size)
    return totals


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    num_clips: Tensor,
    config: TrainingConfig,
    world_size: int = 1,
) -> None:
    """The end of a step: gradients of losses that were summed and divided by the batch size, of which ``num_clips``
    were there, change the weights and are forgotten."""
    scaler.unscale_(optimizer)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # DDP averages over processes: times their number it adds up. Damaged clips are missing from the sum: divide by what
    # was there. One process and nothing missing: exactly 1.
    torch._foreach_mul_(gradients, (world_size * config.batch_size / num_clips.clamp(min=1)).float())
    if config.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], config.clip_grad_norm
        )
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
