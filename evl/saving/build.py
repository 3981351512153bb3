"""A config → a classifier: backbone, decoder and head of matching sizes, and its card."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from evl.backbones import FrozenBackbone, ImageEmbedding, create_backbone
from evl.backbones.text.tower import open_shared_space, require_text_tower
from evl.config import RunConfig
from evl.data.manifests.labels import clean_names
from evl.errors import ConfigError
from evl.models import Classifier, ClassifierHead, ZeroShot
from evl.models.card import ModelCard
from evl.models.registry import build_decoder, taps_of
from evl.types import EncoderFacts
from evl.video.transforms import preprocessing_of


def build(
    kind: type[Classifier],
    config: RunConfig,
    class_names: Sequence[str],
    *,
    backbone: FrozenBackbone | EncoderFacts | None = None,
    embedding_width: int | None = None,
    seed: int | None = None,
) -> Classifier:
    """An untrained classifier of the class ``kind``, as ``evl.saving.build_classifier`` has it."""
    class_names = clean_names(class_names)
    if len(class_names) < 2:
        raise ConfigError(f"{len(class_names)} class: a classifier needs at least two")
    uses_text = config.model.decoder == "zero_shot" or config.model.zero_shot_start
    if uses_text and isinstance(backbone, EncoderFacts):
        what = "model.decoder=zero_shot" if config.model.decoder == "zero_shot" else "model.zero_shot_start"
        raise ConfigError(
            f"{what} reads the end of {backbone.spec.name} (its last norm, pooling and projection), which a store of "
            "features does not hold; train on the videos instead"
        )
    if uses_text and embedding_width is None:
        require_text_tower(config.backbone)
    backbone = backbone or create_backbone(config.backbone, taps_of(config.model))
    if seed is not None:
        torch.manual_seed(seed)
    if uses_text and backbone.taps[-1] != backbone.spec.depth:
        raise ConfigError(
            f"zero-shot reads the last block of {backbone.spec.name} ({backbone.spec.depth}), but the deepest in "
            f"model.taps is {backbone.taps[-1]}"
        )
    zero_shot = None
    if config.model.decoder == "zero_shot":
        decoder, head = build_zero_shot(config, backbone, class_names, embedding_width), nn.Identity()
    else:
        num_maps, rest = divmod(config.clip.num_frames, backbone.frames_per_map)
        if rest:
            raise ConfigError(
                f"clip.num_frames={config.clip.num_frames}: {backbone.spec.name} makes a token map of each "
                f"{backbone.frames_per_map} frames; take a multiple of {backbone.frames_per_map}"
            )
        decoder = build_decoder(config.model, backbone.spec, len(backbone.taps), num_maps)
        head = ClassifierHead(decoder.width, len(class_names), config.model.head_dropout)
        if config.model.zero_shot_start:
            zero_shot = build_zero_shot(config, backbone, class_names, embedding_width)
            nn.init.zeros_(head.linear.weight)  # so that the first step scores what zero-shot scores
            nn.init.zeros_(head.linear.bias)
    model = kind(backbone, decoder, head, class_names, zero_shot=zero_shot)
    model.card = ModelCard(
        config=config,
        backbone_hash=backbone.weights_hash,
        preprocessing=preprocessing_of(config, backbone.preprocessing),
        class_names=class_names,
        origin=backbone.origin,
    )
    return model


def build_zero_shot(
    config: RunConfig, backbone: FrozenBackbone, class_names: Sequence[str], width: int | None
) -> ZeroShot:
    """Classes by their names, through the backbone's text tower; with ``width``, an empty one to be loaded."""
    if width is not None:
        scalar, text = torch.zeros(()), torch.zeros(len(class_names), width)
        return ZeroShot(ImageEmbedding(backbone, width), text, scalar, scalar.clone())
    space = open_shared_space(backbone, config.backbone, class_names, config.model.prompts)
    return ZeroShot(space.embedding, space.text, space.logit_scale, space.logit_bias)
