"""Compares a store with the config of a run, and with the description of another store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from evl.backbones import create_backbone
from evl.backbones.base import tapped_blocks
from evl.config import BackboneConfig, ModelConfig, RunConfig
from evl.errors import BackboneError
from evl.models.registry import reads_maps, taps_of
from evl.store.description import StoreDescription


def differences(description: StoreDescription, config: RunConfig) -> list[str]:
    """The reasons why a run with ``config`` cannot use the store, one sentence each; [] if it can.

    Not compared: ``data``, because the store has its own list of videos; ``evaluation.batch_size`` and
    ``evaluation.metrics``; and ``training``. The store's seed drew the stored clips; a run with another seed only has
    other initial values and another order of videos. If the run has its own weights file, the file is loaded to
    compare its hash.
    """
    reasons = []
    for section in ("backbone", "clip", "augment", "evaluation"):
        stored, wanted = getattr(description.config, section), getattr(config, section)
        for field in fields(stored):
            here, there = getattr(wanted, field.name), getattr(stored, field.name)
            name = f"{section}.{field.name}"
            if name == "backbone.weights":
                continue  # compared by _weights_difference
            if name == "backbone.image_size":
                here, there = _side(here), _side(there)
            if here == there or name in ("evaluation.batch_size", "evaluation.metrics"):
                continue
            if name == "clip.stride" and config.clip.spacing == description.config.clip.spacing:
                continue  # then the stride has no effect
            if name == "clip.interpolation" and here == description.preprocessing.interpolation:
                continue  # the store has "auto", which meant this value
            reasons.append(f"{name} is {_text(here)} in the run and {_text(there)} in the store")
    here, there = config.data.pixel_aspect, description.config.data.pixel_aspect
    reasons += [] if here == there else [f"data.pixel_aspect is {here} in the run and {there} in the store"]
    is_same_kind = not any(sentence.startswith("backbone.") for sentence in reasons)
    reasons += _weights_difference(description, config.backbone) if is_same_kind else []
    return reasons + _tap_difference(description, config.model)


def _weights_difference(description: StoreDescription, backbone: BackboneConfig) -> list[str]:
    """Compares the hash if the run has a weights file that exists, else the names of the two files."""
    here, there = backbone.weights, description.config.backbone.weights
    if here == there:
        return []
    if here is None or not os.path.isfile(here):
        names = [None if path is None else Path(path).name for path in (here, there)]
        same = names[0] == names[1]
        return [] if same else [f"backbone.weights is {_text(names[0])} in the run and {_text(names[1])} in the store"]
    try:
        own = create_backbone(backbone, description.taps, trust_origin=True).weights_hash
    except BackboneError as error:
        return [str(error)]
    if own == description.backbone_hash:
        return []
    return [
        f"backbone.weights {here} has the hash {own[:12]}… and those in the store {description.backbone_hash[:12]}…"
    ]


def _tap_difference(description: StoreDescription, model: ModelConfig) -> list[str]:
    try:
        taps = tapped_blocks(taps_of(model), description.spec.depth, description.spec.name)
    except BackboneError as error:
        return [str(error)]
    there = description.taps if reads_maps(model) else description.blocks
    missing = [tap for tap in taps if tap not in there]
    if not missing:
        return []
    stored = ", ".join(map(str, there))
    verb = "is" if len(missing) == 1 else "are"
    return [f"the run reads block {', '.join(map(str, missing))}, which {verb} not in the store (it has {stored})"]


def _side(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _text(value) -> str:
    return "not set" if value is None else str(value)


def conflicts(description: StoreDescription, other: StoreDescription) -> list[str]:
    """The reasons why an extraction as in ``other`` cannot continue a store of ``description``, one sentence each."""
    stored, wanted = _decisive(description), _decisive(other)
    return [
        f"{name} is {_text(wanted.get(name))} now and {_text(stored.get(name))} in the store"
        for name in stored | wanted
        if stored.get(name) != wanted.get(name)
    ]


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Why a run cannot go on with features of the fingerprint ``now`` after those of ``before``, one sentence each.

    Not compared: the name of the weights file, because its hash is compared, and the list of videos, because the run
    has its own.
    """
    return [
        f"{name} is {_text(now.get(name))} in the store and was {_text(before.get(name))}"
        for name in before | now
        if before.get(name) != now.get(name) and name not in ("backbone.weights", "videos_hash")
    ]


def _decisive(description: StoreDescription) -> dict[str, object]:
    """Everything that decides the bytes of the shards: name -> value."""
    names = ("format_version", "class_names", "clips_per_shard", "splits")
    return description.fingerprint | {name: getattr(description, name) for name in names}
