"""The same losses in float32, bf16, fp16 with its scaler, compiled, and as one rank of a process group."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist
from settings import Row, Settings, attempt, exact_float32
from stepping import stepper

from evl.config import RunConfig, replace
from evl.saving import build_classifier

SCALE = 256.0  # the usual 65,536 overflows at first, and the steps that are then left out change every later loss
NEAR = 0.05  # of the first loss: what rounding may change in the last one


def run(settings: Settings) -> Iterator[Row]:
    exact_float32()
    losses = take(settings, "fp32")
    yield row("fp32", losses, losses)
    for precision in ("bf16", "fp16"):
        yield from attempt(precision, partial(narrow, settings, precision, losses))
    yield from attempt("one rank", partial(one_rank, settings, losses))
    yield from attempt("compiled", partial(compiled, settings, losses))


def narrow(settings: Settings, precision: str, exact: list[float]) -> Iterator[Row]:
    yield row(precision, take(settings, precision), exact)


def compiled(settings: Settings, exact: list[float]) -> Iterator[Row]:
    precision = "bf16" if settings.is_cuda else "fp32"
    yield row(f"{precision}, compiled", take(settings, precision, compiled=True), exact)


def one_rank(settings: Settings, exact: list[float]) -> Iterator[Row]:
    """Gradients and totals through the collectives of a group of one: NCCL on CUDA, gloo elsewhere."""
    backend = "nccl" if settings.is_cuda else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MASTER_ADDR", "localhost")
        dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        try:
            losses = take(settings, "fp32", grouped=True)
            gathered = [None]
            dist.all_gather_object(gathered, {"loss": losses[-1]})
            total = torch.ones(3, device=settings.device)
            dist.all_reduce(total)
            dist.barrier()
        finally:
            dist.destroy_process_group()
    yield row(f"fp32, one rank of {backend}", losses, exact)
    yield {
        "what": f"{backend}: gathered and summed",
        "ok": gathered == [{"loss": losses[-1]}] and total.sum().item() == 3,
    }


def take(settings: Settings, precision: str, *, compiled: bool = False, grouped: bool = False) -> list[float]:
    """Losses of some steps on the same few clips, which are learned by heart."""
    device = settings.device
    name = "evl_clip_tiny" if settings.dry or not settings.is_cuda else "vit_base_patch16_clip_quickgelu_224"
    count, frames, batch = (5, 3, 4) if settings.dry else (20, 8, 16)
    config = replace(
        RunConfig(), backbone={"name": name, "pretrained": False}, clip={"num_frames": frames},
        model={"taps": "last 2", "mlp_dropout": 0.0, "head_dropout": 0.0},
        training={"steps": count, "batch_size": batch, "precision": precision, "lr": 1e-3},
    )  # fmt: skip
    model = build_classifier(config, [str(y) for y in range(10)], seed=0).to(device).train()
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(batch, frames, 3, *model.backbone.spec.image_size, generator=generator).to(device)
    labels = (torch.arange(batch) % 10).to(device)
    # with a group of one, gradients go through its collectives
    learner, take_step = stepper(model, config, device, scale=SCALE, size=2 if grouped else 1)
    if compiled:
        model.compile()
    losses = []
    for step in range(count):
        total, seen, _ = take_step(clips, labels, step)
        losses.append((total / seen).item())
    scaler = learner.scaler
    if scaler.is_enabled() and not scaler.get_scale() >= 1:
        raise RuntimeError(f"the scaler fell to {scaler.get_scale()}: gradients overflow at every step")
    return losses


def row(what: str, losses: list[float], exact: list[float]) -> Row:
    error = abs(losses[-1] - exact[-1]) / exact[0]
    finite, learned = all(map(math.isfinite, losses)), losses[-1] < losses[0]
    return {
        "what": what, "first_loss": losses[0], "last_loss": losses[-1], "difference": error, "allowed": NEAR,
        "ok": finite and learned and error <= NEAR,
    }  # fmt: skip
