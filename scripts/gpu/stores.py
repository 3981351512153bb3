"""Parity of stores: what is packed and unpacked on this device, against the CPU and against live features."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import get_args, get_type_hints

import torch
from memory_store import describe, stored_clips, unpacker_of
from settings import DTYPES, Row, Settings, attempt, compared, difference, exact_float32

from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.models.crossframe import neighbor_maps
from evl.runtime.precision import autocast
from evl.store import StoreOptions

STORED = get_args(get_type_hints(StoreOptions)["dtype"])
# of numbers that are stored so, as a norm: half a step of 8 bits is 1/254 of the largest number of a channel
ROUNDING = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3, "int8": 2e-2, "float8": 4e-2}
READING = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 3e-3}  # the same stored bytes, read here and on the CPU


def run(settings: Settings) -> Iterator[Row]:
    exact_float32()
    for form in get_args(get_type_hints(StoreOptions)["form"]):
        for dtype in STORED:
            yield from attempt(f"{form}, {dtype}", partial(one, settings, form, dtype), stored=dtype)


def one(settings: Settings, form: str, dtype: str) -> Iterator[Row]:
    config = replace(RunConfig(), backbone={"name": "evl_clip_tiny"}, model={"taps": "last 2"}, clip={"num_frames": 4})
    torch.manual_seed(0)
    backbone = create_backbone(config.backbone, config.model.taps)
    clips = torch.randn(3, 4, 3, 64, 64)
    live = backbone(clips)
    options = StoreOptions(form=form, dtype=dtype)
    cpu = stored_clips(backbone, clips, options)
    reader = unpacker_of(describe(backbone, config, options, "fp32"), backbone)
    wanted = reader(cpu)
    backbone.to(settings.device)
    here = stored_clips(backbone, clips.to(settings.device), options)
    for kind in ("tokens", "maps"):
        for block, packed in getattr(here, kind).items():
            other = getattr(cpu, kind)[block].unpack()
            # what lies between two steps may be rounded to either, where it was computed a little otherwise
            error = difference(packed.to("cpu").unpack(), other)
            yield compared(f"packed {kind} of block {block}", error, ROUNDING[dtype], form=form, stored=dtype)
    reader.to(settings.device)
    for precision in DTYPES:
        with autocast(precision, settings.device):
            got = reader(cpu.to(settings.device))
        pairs = [(a.tokens, b.tokens) for a, b in zip(got, wanted, strict=True)]
        pairs += [pair for a, b in zip(got, wanted, strict=True) for pair in zip(a.maps, b.maps, strict=True)]
        error = max(difference(a, b) for a, b in pairs)
        yield compared("read", error, READING[precision], form=form, stored=dtype, precision=precision)
    exact = [neighbor_maps(x.query, x.key, backbone.spec.grid, torch.float32) for x in live]
    errors = [difference(a.tokens, b.tokens) for a, b in zip(wanted, live, strict=True)]
    errors += [difference(x, y) for a, maps in zip(wanted, exact, strict=True)
               for x, y in zip(a.maps, maps, strict=True)]  # fmt: skip
    yield {"what": "rounding of the store itself", "form": form, "stored": dtype, "difference": max(errors)}
