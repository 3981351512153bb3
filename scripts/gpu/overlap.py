"""Where the time goes on the device, by a trace: a step, the decoder alone, pixels from the host, extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from memory_store import describe, features_in_memory
from settings import Row, Settings, attempt
from stepping import stepper
from traces import profiled, summed

from evl.config import RunConfig, replace
from evl.runtime.precision import autocast
from evl.saving import build_classifier
from evl.store import StoreOptions
from evl.video.transforms import normalize

BATCHES = 4  # in a trace


def run(settings: Settings) -> Iterator[Row]:
    for how in ("eager", "compiled"):
        if how == "compiled" and settings.dry:
            continue
        yield from attempt(how, partial(traced, settings, how == "compiled"))


def traced(settings: Settings, compiled: bool) -> Iterator[Row]:
    device, how = settings.device, "compiled" if compiled else "eager"
    name, frames, batch = ("evl_clip_tiny", 3, 2) if settings.dry else ("vit_base_patch16_clip_quickgelu_224", 8, 64)
    if not settings.is_cuda:
        batch = min(batch, 2)
    precision = "bf16" if settings.is_cuda else "fp32"
    config = replace(
        RunConfig(), backbone={"name": name, "pretrained": False}, clip={"num_frames": frames},
        model={"taps": "last 2" if settings.dry else "last 4"},
        training={"steps": 1000, "batch_size": batch, "precision": precision},
    )  # fmt: skip
    model = build_classifier(config, [str(y) for y in range(400)], seed=0).to(device).train()
    if compiled:
        model.compile()
    backbone = model.backbone
    pre = backbone.preprocessing
    learner, take = stepper(model, config, device)
    labels = torch.arange(batch, device=device) % 400
    host = [torch.randint(256, (batch, frames, 3, *backbone.spec.image_size), dtype=torch.uint8) for _ in range(2)]
    if settings.is_cuda:
        host = [pixels.pin_memory() for pixels in host]
    clips = normalize(host[0].to(device), pre.mean, pre.std)

    def step(clips) -> None:
        take(clips, labels, 0)

    def steps_from_memory() -> None:
        for _ in range(BATCHES):
            step(clips)

    def steps_from_the_host() -> None:  # as training takes what its workers decoded
        for number in range(BATCHES):
            step(normalize(host[number % 2].to(device, non_blocking=True), pre.mean, pre.std))

    def decoder(features) -> None:
        model.classify(features).float().sum().backward()
        learner.optimizer.zero_grad(set_to_none=True)

    def row(what: str, call: Callable[[], object]) -> Row:
        return {"what": what, "how": how, **summed(profiled(call, device))}

    with autocast(precision, device):
        features = model.features(clips)
    yield row("decoder and head, forward and backward", partial(decoder, features))
    del features
    yield row(f"{BATCHES} steps, clips on the device", steps_from_memory)
    yield row(f"{BATCHES} steps, pixels from pinned memory", steps_from_the_host)
    work = features_in_memory(describe(backbone, config, StoreOptions(dtype="int8"), precision), config, backbone)
    together = max(1, 64 // frames)  # what extraction takes together

    def extraction() -> None:
        for number in range(BATCHES):
            work.features_of(host[number % 2][:together])

    yield row(f"{BATCHES} batches of extraction", extraction)
