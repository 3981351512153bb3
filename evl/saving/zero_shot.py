"""A classifier from class names alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evl.backbones import parse_backbone
from evl.backbones.text.tower import whole_clip_files
from evl.config import BackboneConfig, RunConfig
from evl.config import replace as change
from evl.data.manifests.labels import clean_names
from evl.errors import ConfigError, MissingWeightsError
from evl.saving.classifier import VideoClassifier, build_classifier
from evl.sections import PROMPTS


def zero_shot(
    backbone: str | BackboneConfig,
    class_names: Sequence[str],
    *,
    weights: str | Path | None = None,
    prompts: Sequence[str] = PROMPTS,
    num_frames: int = 8,
) -> VideoClassifier:
    """A CLIP-like encoder as a classifier of videos, untrained: the mean of the frames' image embeddings against the
    embeddings of class names. In evaluation mode, on the CPU; it can be asked, evaluated and saved like any other, and
    once saved needs no text tower.

    ``backbone``: a timm name, one of OpenAI's archives, or a config. ``weights``: a file with the whole CLIP of that
    name, instead of what the hub has. ``prompts``: what stands around a name, ``{}``.
    ``num_frames`` are spread over the whole video. Needs open_clip: ``pip install "evl[clip]"``.
    Raises BackboneError for a backbone without text tower, ConfigError for class names that cannot be told apart.
    """
    if isinstance(class_names, str):
        raise ConfigError(f"class names {class_names!r}: expected a list of them, not one text")
    names = clean_names(class_names)
    if not all(names):
        raise ConfigError("a class name is empty")
    spoken = [" ".join(name.replace("_", " ").split()) for name in names]
    if twice := next((name for name in spoken if spoken.count(name) > 1), None):
        raise ConfigError(f"the class name {twice!r} is given twice, as a text tower reads it")
    if isinstance(backbone, str):
        backbone = parse_backbone(backbone)
    if weights is not None:
        backbone = change(RunConfig(backbone=backbone), backbone={"weights": str(weights)}).backbone
    config = change(
        RunConfig(backbone=backbone),
        model={"decoder": "zero_shot", "taps": "last 1", "prompts": list(prompts)},
        clip={"sampling": "segment", "num_frames": num_frames},
        evaluation={"num_clips": 1, "num_crops": 1},
    )
    try:
        return build_classifier(config, names).eval()
    except MissingWeightsError as error:
        files = " and ".join(whole_clip_files(backbone))
        raise MissingWeightsError(
            f"{str(error).split('. ')[0]}. Zero-shot needs the whole CLIP: fetch {files} into one folder (for SigLIP "
            "tokenizer.json and tokenizer_config.json too), and give `weights=FOLDER/open_clip_model.safetensors`"
        ) from error
