"""AdamW, the learning rate, and the end of a step over a batch of all processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evl.config import TrainingConfig
from evl.runtime.distributed import World
from evl.runtime.precision import resolve_precision


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of step 0, 1, …

    It rises linearly over ``warmup_steps``, then falls as half a cosine that would reach 0 at step ``steps``.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on all trainable parameters, as published.

    It is fused, so each step is one pass over memory. On the CPU this is several times as fast.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def make_scaler(config: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=resolve_precision(config.precision, device) == "fp16")


def sum_gradients(optimizer: torch.optim.Optimizer, world: World) -> None:
    """Adds up the gradients of all processes, in place and in one call."""
    if world.size == 1:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    flat = world.sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    num_clips: Tensor,
    config: TrainingConfig,
) -> None:
    """Changes the weights by the gradients, and clears these.

    The losses were summed over ``num_clips`` clips and divided by the batch size.
    """
    scaler.unscale_(optimizer)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # damaged clips are missing in the sum, so the mean is over num_clips; the factor is exactly 1 if none is missing
    torch._foreach_mul_(gradients, (config.batch_size / num_clips.clamp(min=1)).float())
    if config.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], config.clip_grad_norm
        )
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
