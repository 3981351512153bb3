"""Models against stored features of labelled videos: no video is opened, and no backbone in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from evl.assembly import VideoClassifier, find_model, load, read_card
from evl.assembly.build import taps_of
from evl.config import ModelConfig, RunConfig
from evl.distributed import World
from evl.errors import ConfigError, StoreError
from evl.evaluation.evaluate import Evaluation, counted, labels_of
from evl.features.backbone import StoredBackbone, stored_backbone
from evl.features.description import config_of, differences
from evl.features.store import FeatureStore
from evl.inference.predictor import judging_precision, predict_stored
from evl.types import Sample


def backbone_for(config: ModelConfig, store: FeatureStore) -> StoredBackbone:
    """What stands in the backbone's place in a model of ``config`` that reads the store."""
    if config.decoder == "zero_shot" or config.zero_shot_start:
        raise ConfigError(
            "zero-shot needs the backbone itself, which a store does not hold: unset model.zero_shot_start, or go "
            "without --features"
        )
    backbone = stored_backbone(store, taps_of(config))
    backbone.needs_maps = config.decoder == "evl" and config.cross_frame
    return backbone


def refuse_differences(store: FeatureStore, config: RunConfig) -> None:
    """StoreError with every reason why a run of ``config`` cannot use the store."""
    if reasons := differences(store.description, config):
        raise StoreError(
            f"{store.path} holds other features than this run needs: {'; '.join(reasons)}. Leave these settings as the "
            "store has them, or make another store with evl extract"
        )


def load_for_store(run: str | Path, store: FeatureStore, device: str | torch.device = "cpu") -> VideoClassifier:
    """``evl.load(run)``, whose model takes stored clips instead of pixels. Raises StoreError where it was trained on
    other features than the store holds."""
    card, description = read_card(find_model(run)), store.description
    backbone = replace(card.backbone, weights=description.backbone.weights)  # ``load`` compares their hashes
    refuse_differences(store, replace(config_of(description), backbone=backbone, model=card.model, clip=card.clip))
    if card.preprocessing != description.preprocessing:
        raise StoreError(
            f"{store.path} was made of pixels prepared otherwise than for {run}: {description.preprocessing}, not "
            f"{card.preprocessing}"
        )
    return load(run, device=device, backbone=backbone_for(card.model, store))


def evaluate_stored(model: VideoClassifier, store: FeatureStore, split: str = "val", **options) -> Evaluation:
    """``evaluate`` from a split of a store, on which the model stands (its backbone a StoredBackbone): by all stored
    views. ``options``: those of ``evaluate_heads``."""
    return evaluate_heads([model], store, split, **options)[0]


def evaluate_heads(
    models: Sequence[VideoClassifier],
    store: FeatureStore,
    split: str = "val",
    *,
    batch_size: int | None = None,
    precision: str | None = None,
    trained_on: Sequence[Sample] = (),
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Evaluation]:
    """Models of the same classes that share their StoredBackbone, each as ``evaluate_stored``, in one pass.
    ``trained_on``: see ``evaluate``."""
    first, stored = models[0], store.splits[split]
    labels = labels_of(stored.samples, first.class_names)
    results = predict_stored(
        models, stored, labels, batch_size=batch_size, precision=precision, world=world, progress=progress
    )
    used = judging_precision(first, precision)
    evaluations = []
    for model, result in zip(models, results, strict=True):
        protocol = stored_protocol(model, store, len(result.predictions), used)
        evaluations.append(counted(result, stored.samples, model.class_names, protocol, trained_on))
    return evaluations


def stored_protocol(model: VideoClassifier, store: FeatureStore, num_videos: int, precision: str | None = None) -> str:
    """How a model saw the videos of a store, on one line."""
    views, options = store.description.evaluation, store.description.options
    protocol = model.card.protocol(num_videos, views.num_clips, views.num_crops, precision)
    return f"{protocol}, from a store ({options.form}, {options.dtype})"
