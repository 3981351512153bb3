"""A training step on clips that are on the device, as ``evl train`` takes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from evl.config import RunConfig
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.precision import autocast
from evl.streams import Batch
from evl.training.learner import Learner
from evl.training.learners import Learners


def stepper(
    model: Classifier, config: RunConfig, device: torch.device, *, scale: float | None = None, size: int = 1
) -> tuple[Learner, Callable[[Tensor, Tensor, int], Tensor]]:
    """(the learner, a step on clips (B,T,C,H,W), labels (B) and the step's number -> [loss, clips, hits], summed).

    ``scale``: at which fp16's scaler begins. ``size``: 2 makes gradients be summed, as among several processes.
    """
    learner = Learner("a step", config, model)
    if scale is not None:
        learner.scaler = torch.amp.GradScaler(device.type, scale, enabled=config.training.precision == "fp16")
    learners, world = Learners([learner]), World(0, size, device)

    def step(clips: Tensor, labels: Tensor, number: int) -> Tensor:
        with autocast(config.training.precision, device):
            features = model.features(clips)
        batch = Batch(features, labels.to(device), tuple(range(len(labels))), {})
        learners.step(number, [batch], world)
        return learner.totals.clone()

    return learner, step
