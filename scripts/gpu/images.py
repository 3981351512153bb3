"""Images a second from memory: timm's plain model, evl's encoder, and extraction as far as the packed features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from memory_store import describe, features_in_memory
from settings import Row, Settings, attempt

from evl.backbones import create_backbone
from evl.bench.measure import time_together
from evl.config import RunConfig, replace
from evl.runtime.precision import autocast
from evl.store import StoreOptions

NAMES = {"B/16": "vit_base_patch16_clip_quickgelu_224", "L/14": "vit_large_patch14_clip_quickgelu_224"}
FRAMES = 8


def run(settings: Settings) -> Iterator[Row]:
    for how in ("eager", "compiled"):
        for size, name in NAMES.items():
            yield from attempt(f"{size}, {how}", partial(measure, settings, size, name, how == "compiled"))


def measure(settings: Settings, size: str, name: str, compiled: bool) -> Iterator[Row]:
    device, how = settings.device, "compiled" if compiled else "eager"
    precision = "bf16" if settings.is_cuda else "fp32"
    name = "evl_clip_tiny" if settings.dry else name
    config = replace(RunConfig(), backbone={"name": name, "pretrained": False}, clip={"num_frames": FRAMES})
    backbone = create_backbone(config.backbone, "last 2" if settings.dry else "last 4").to(device)
    side = backbone.spec.image_size[0]
    if compiled:
        backbone.compile()
    batches = (8,) if settings.dry else (256,) if compiled else (64, 256, 512)
    narrow = backbone.in_type(torch.bfloat16) if settings.is_cuda else backbone

    def rate(what: str, count: int, call: Callable[[], object], **more: object) -> Row:
        seconds = time_together({"it": call}, device, 1 if settings.dry else 5)["it"]
        row = {"what": f"{size}, {what}", "how": how, "precision": precision, "images_together": count}
        return {**row, "images_a_second": count / seconds, **more}

    for count in batches:
        images = torch.randn(count, 3, side, side, device=device, dtype=next(narrow.parameters()).dtype)

        def plain(images=images) -> None:
            with torch.inference_mode():
                narrow.vit.forward_features(images)

        if not compiled:  # compiled blocks are evl's own choice; timm's tables are of whole models
            yield rate("plain timm", count, plain)
        clips = torch.randn(count // FRAMES, FRAMES, 3, side, side, device=device)

        def encoder(clips=clips) -> None:
            with torch.no_grad(), autocast(precision, device):
                backbone(clips)

        yield rate("encoder with taps", count, encoder)
    for dtype in ("int8",) if settings.dry or compiled else ("float16", "int8"):
        options = StoreOptions(dtype=dtype)
        work = features_in_memory(describe(backbone, config, options, precision), config, backbone)
        for count in (64,) if not settings.dry else (8,):  # what extraction takes together
            pixels = torch.randint(256, (count // FRAMES, FRAMES, 3, side, side), dtype=torch.uint8)
            pixels = pixels.pin_memory() if settings.is_cuda else pixels
            yield rate(f"extraction, {dtype}", count, partial(work.features_of, pixels))
