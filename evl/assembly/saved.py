"""A model on disk: ``model.safetensors`` (what was trained) and ``model.json`` (all that belongs to it)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError

from evl import __version__
from evl.assembly.build import FORMAT_VERSION, ModelCard, build_classifier
from evl.config import RunConfig
from evl.errors import BackboneError, CheckpointError
from evl.files import write_atomically
from evl.models import VideoClassifier

WEIGHTS, CARD = "model.safetensors", "model.json"


def save_model(model: VideoClassifier, folder: str | Path, *, scores: dict[str, float | str] | None = None) -> None:
    """Writes the trainable weights and the card. Raises SaveError if the disk refuses; old files then remain."""
    folder = Path(folder)
    if model.card is None:
        raise CheckpointError("this model says nothing of its backbone and pixels (no card), so it cannot be saved")
    weights = model.card.backbone.weights
    card = replace(
        model.card,
        backbone=replace(model.card.backbone, weights=str(Path(weights).absolute()) if weights else None),
        backbone_hash=model.backbone.weights_hash,
        scores=scores,
        evl_version=__version__,
    )
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.trainable_state().items()}
    with write_atomically(folder / WEIGHTS) as file:
        file.write(safetensors.torch.save(tensors, metadata={"format": "pt", "evl": __version__}))
    with write_atomically(folder / CARD, text=True) as file:
        json.dump(TypeAdapter(ModelCard).dump_python(card, mode="json"), file, indent=2, ensure_ascii=False)


def read_card(folder: str | Path) -> ModelCard:
    """``model.json`` of a run or model folder. Raises CheckpointError with the reason."""
    path = Path(folder) / CARD
    if not path.is_file():
        if (Path(folder) / "config.yaml").is_file():
            raise CheckpointError(f"{folder}: this run is not finished; go on with: evl train --out {folder} --resume")
        raise CheckpointError(f"{folder}: no saved model here (no {CARD}); expected the folder of a finished run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(version, int | str) and int(version) > FORMAT_VERSION:
            raise CheckpointError(f"{path}: format {version}, this evl reads up to {FORMAT_VERSION}; upgrade evl")
        return TypeAdapter(ModelCard).validate_python(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:  # no JSON, no text
        raise CheckpointError(f"{path}: damaged ({error})") from None


def load(
    path: str | Path, *, device: str | torch.device = "cpu", backbone_weights: str | Path | None = None
) -> VideoClassifier:
    """The classifier of a run or model folder, in evaluation mode: backbone rebuilt, trained weights put in.

    ``backbone_weights``: where the backbone's file is now, if it was loaded from one and has moved.
    Raises CheckpointError if the folder is no model, is damaged, or its backbone's weights are not those it was
    trained on.
    """
    card = read_card(path)
    weights = backbone_weights or card.backbone.weights
    if weights is not None and not Path(weights).is_file() and (Path(path) / Path(weights).name).is_file():
        weights = Path(path) / Path(weights).name
    backbone = replace(card.backbone, weights=str(weights) if weights is not None else None)
    config = RunConfig(backbone=backbone, model=card.model, clip=card.clip, evaluation=card.evaluation)
    try:
        model = build_classifier(
            config, card.class_names, trust_origin=True, embedding_width=card.embedding_width
        )  # the hash below tells
    except BackboneError as error:
        raise CheckpointError(f"{path}: its backbone cannot be rebuilt: {error}") from error
    if model.backbone.weights_hash != card.backbone_hash:
        raise CheckpointError(
            f"{path} was trained on other backbone weights: {card.backbone.name} with hash "
            f"{card.backbone_hash[:12]}…, but {weights or 'what that name gives here'} has "
            f"{model.backbone.weights_hash[:12]}…"
        )
    _refuse_inconsistent(card, model, path)
    load_trained(model, Path(path) / WEIGHTS)
    model.card = replace(card, backbone=backbone)
    return model.to(device).eval()


def _refuse_inconsistent(card: ModelCard, model: VideoClassifier, path: str | Path) -> None:
    pre, spec = card.preprocessing, model.backbone.spec
    wrong = [
        what
        for what, is_wrong in (
            (
                f"images of {pre.image_size} for a backbone that takes {spec.image_size}",
                pre.image_size != spec.image_size,
            ),
            (f"interpolation {pre.interpolation!r}", pre.interpolation not in ("bilinear", "bicubic")),
            (f"std {pre.std}", min(pre.std) <= 0),
            ("a class name that stands there twice", len(set(card.class_names)) != len(card.class_names)),
        )
        if is_wrong
    ]
    if wrong:
        raise CheckpointError(f"{Path(path) / CARD}: {'; '.join(wrong)}")


def load_trained(model: VideoClassifier, path: Path) -> None:
    """Puts a ``model.safetensors`` into a model of the same sizes; CheckpointError otherwise."""
    try:
        state = safetensors.torch.load_file(path)
        model.load_trainable_state(state)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[:3]]
        raise CheckpointError(f"{path}: does not fit this model: {' '.join(lines)}") from None
