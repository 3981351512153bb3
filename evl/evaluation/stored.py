"""Stored features for models: which a model can read, and the streams that read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from evl.config import ModelConfig, RunConfig
from evl.errors import ConfigError, StoreError
from evl.evaluation.evaluate import labels_of
from evl.inference.reading import device_of, judging_precision
from evl.models.card import ModelCard
from evl.models.registry import reads_maps, reads_query_key, taps_of
from evl.saving import VideoClassifier, find_model, load, read_card
from evl.store.compatibility import differences
from evl.store.store import FeatureStore
from evl.store.unpacker import encoder_of, open_unpacker
from evl.streams.stored import Stored, stored_views
from evl.types import EncoderFacts


def encoder_for(config: ModelConfig, store: FeatureStore) -> EncoderFacts:
    """What a model of ``config`` that reads the store is built on. Raises ConfigError or StoreError where it cannot."""
    if config.decoder == "zero_shot" or config.zero_shot_start:
        raise ConfigError(
            "zero-shot needs the backbone itself, which a store does not hold: unset model.zero_shot_start, or "
            "read the videos instead"
        )
    if reads_query_key(config):
        raise ConfigError(
            f"model.decoder={config.decoder} reads the encoder's queries and keys, which a store does not hold: read "
            "the videos instead"
        )
    return encoder_of(store.description, taps_of(config), needs_maps=reads_maps(config))


def refuse_differences(store: FeatureStore, config: RunConfig) -> None:
    """StoreError with every reason why a run of ``config`` cannot use the store."""
    if reasons := differences(store.description, config):
        raise StoreError(
            f"{store.path} holds other features than this run needs: {'; '.join(reasons)}. Leave these settings as the "
            "store has them, or make another store with evl extract"
        )


def load_for_store(run: str | Path, store: FeatureStore, device: str | torch.device = "cpu") -> VideoClassifier:
    """``evl.load(run)`` without its encoder, for the store's features. Raises StoreError where it was trained on other
    features than the store holds."""
    card = read_card(find_model(run))
    refuse_other_features(store, card, str(run))
    return load(run, device=device, backbone=encoder_for(card.config.model, store))


def refuse_other_features(store: FeatureStore, card: ModelCard, model_name: str) -> None:
    """StoreError where a model of ``card`` was trained on other features than the store holds."""
    description = store.description
    stored, own = description.config, card.config
    backbone = replace(own.backbone, weights=stored.backbone.weights)  # the hashes are compared
    refuse_differences(store, replace(stored, backbone=backbone, model=own.model, clip=own.clip))
    if card.preprocessing != description.preprocessing:
        raise StoreError(
            f"{store.path} was made of pixels prepared otherwise than for {model_name}: {description.preprocessing}, "
            f"not {card.preprocessing}"
        )
    if card.backbone_hash != description.backbone_hash:
        raise StoreError(
            f"{model_name} was trained on other backbone weights than those of {store.path}: hash "
            f"{card.backbone_hash[:12]}…, not {description.backbone_hash[:12]}…"
        )


def views_of_store(
    model: VideoClassifier,
    store: FeatureStore,
    split: str = "val",
    *,
    labeled: bool = True,
    precision: str | None = None,
) -> Stored:
    """The stream of all stored views of a split, for ``model``. ``labelled``: labels must then be among the model's
    class names (KeyError otherwise)."""
    unpacker = open_unpacker(store, model.encoder.taps, needs_maps=model.reads_maps)
    labels = labels_of(store.splits[split].samples, model.class_names) if labeled else None
    return stored_views(
        store,
        split,
        unpacker,
        model.card.config.clip,
        labels,
        device=device_of(model),
        precision=judging_precision(model, precision),
        dtype=next(model.parameters()).dtype,
    )
