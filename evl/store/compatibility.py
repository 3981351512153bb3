"""Whether a run can use a store, and what a store's run is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from evl.backbones import create_backbone
from evl.backbones.base import tapped_blocks
from evl.config import BackboneConfig, ModelConfig, RunConfig
from evl.errors import BackboneError
from evl.models.registry import taps_of
from evl.store.description import StoreDescription


def differences(description: StoreDescription, config: RunConfig) -> list[str]:
    """Why a run with ``config`` cannot use the store, one sentence each; [] where it can.

    Not compared: ``data`` (the store has its own list of videos), ``training`` (the stored clips are those that the
    store's seed draws; a run with another seed starts from other values and takes videos in another order, on the same
    clips), ``evaluation.batch_size`` and ``evaluation.metrics``. A weights file of the run's own, if it is there, is
    loaded for its hash.
    """
    found = []
    for section in ("backbone", "clip", "augment", "evaluation"):
        stored, wanted = getattr(description.config, section), getattr(config, section)
        for field in fields(stored):
            here, there = getattr(wanted, field.name), getattr(stored, field.name)
            name = f"{section}.{field.name}"
            if name == "backbone.weights":
                continue  # below
            if name == "backbone.image_size":
                here, there = _side(here), _side(there)
            if here == there or name in ("evaluation.batch_size", "evaluation.metrics"):
                continue
            if name == "clip.stride" and config.clip.spacing == description.config.clip.spacing:
                continue  # which it then does not decide
            if name == "clip.interpolation" and here == description.preprocessing.interpolation:
                continue  # what auto stands for
            found.append(f"{name} is {_text(here)} in the run and {_text(there)} in the store")
    here, there = config.data.pixel_aspect, description.config.data.pixel_aspect
    found += [] if here == there else [f"data.pixel_aspect is {here} in the run and {there} in the store"]
    is_same_kind = not any(sentence.startswith("backbone.") for sentence in found)
    found += _weights_difference(description, config.backbone) if is_same_kind else []
    return found + _tap_difference(description, config.model)


def _weights_difference(description: StoreDescription, backbone: BackboneConfig) -> list[str]:
    """By the hash where the run has a file of its own, which may lie anywhere; else by the file's name."""
    here, there = backbone.weights, description.config.backbone.weights
    if here == there:
        return []
    if here is None or not os.path.isfile(here):
        names = [None if path is None else Path(path).name for path in (here, there)]
        same = names[0] == names[1]
        return [] if same else [f"backbone.weights is {_text(names[0])} in the run and {_text(names[1])} in the store"]
    try:
        found = create_backbone(backbone, description.taps, trust_origin=True).weights_hash
    except BackboneError as error:
        return [str(error)]
    if found == description.backbone_hash:
        return []
    return [
        f"backbone.weights {here} has the hash {found[:12]}… and those in the store {description.backbone_hash[:12]}…"
    ]


def _tap_difference(description: StoreDescription, model: ModelConfig) -> list[str]:
    try:
        taps = tapped_blocks(taps_of(model), description.spec.depth, description.spec.name)
    except BackboneError as error:
        return [str(error)]
    missing = [tap for tap in taps if tap not in description.taps]
    if not missing:
        return []
    stored = ", ".join(map(str, description.taps))
    verb = "is" if len(missing) == 1 else "are"
    return [f"the run reads block {', '.join(map(str, missing))}, which {verb} not in the store (it has {stored})"]


def _side(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _text(value) -> str:
    return "not set" if value is None else str(value)


def conflicts(description: StoreDescription, other: StoreDescription) -> list[str]:
    """Why extraction as ``other`` describes it cannot go on in a store of ``description``, one sentence each."""
    stored, wanted = (_all_of(one) for one in (description, other))
    return [
        f"{name} is {_text(wanted.get(name))} now and {_text(stored.get(name))} in the store"
        for name in stored | wanted
        if stored.get(name) != wanted.get(name)
    ]


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Why a run that was begun on features of one ``fingerprint`` cannot go on with those of another, one sentence
    each. Not compared: names of weights files (their hash is), and the list of videos (the run has its own)."""
    return [
        f"{name} is {_text(now.get(name))} in the store and was {_text(before.get(name))}"
        for name in before | now
        if before.get(name) != now.get(name) and name not in ("backbone.weights", "videos_hash")
    ]


def _all_of(description: StoreDescription) -> dict[str, object]:
    """All that decides the bytes of the shards."""
    also = ("format_version", "class_names", "clips_per_shard", "splits")
    return description.fingerprint | {name: getattr(description, name) for name in also}
