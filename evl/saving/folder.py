"""What lies in the folder of a model, read and not believed: its card, its tensors, its backbone."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from evl.backbones import FrozenBackbone, Taps, create_backbone
from evl.backbones.weights.files import refuse_many_tensors
from evl.data.manifests.labels import clean_names
from evl.errors import BackboneError, CheckpointError, ConfigError, one_line
from evl.inference.segments import SegmentRules
from evl.models.card import FORMAT_VERSION, ModelCard
from evl.models.registry import build_decoder, is_loadable, taps_of
from evl.runtime.files import are_torn, expand_home, strict_json
from evl.runtime.import_path import is_import_path, refuse_code_inside
from evl.types import BackboneSpec, EncoderFacts

WEIGHTS, CARD = "model.safetensors", "model.json"
PAIR = "evl_pair_id"  # in the metadata of the weights: the card's ``pair_id``
MADE = "<!-- made by evl from model.json, and again when the model is saved; without this line it stays -->"


def find_model(path: str | Path, revision: str | None = None, **hub) -> Path:
    """The folder of a model: ``path`` itself, or where the hub's ``owner/name`` lies in the cache.

    ``hub``: options of huggingface_hub's ``snapshot_download``.
    """
    path = expand_home(path)
    return fetch(str(path), revision, **hub) if not os.path.exists(path) and is_hub_id(path) else Path(path)


def read_card(folder: str | Path) -> ModelCard:
    """``model.json`` of a run or model folder. Raises CheckpointError with the reason."""
    path = expand_home(Path(folder)) / CARD
    if not path.is_file():
        if (Path(folder) / "config.yaml").is_file():
            raise CheckpointError(f"{folder}: this run is not finished; go on with: evl train --out {folder} --resume")
        what = f"no {CARD}" if path.parent.exists() else "no such folder"
        raise CheckpointError(
            f"{folder}: no saved model here ({what}); expected the folder of a finished run: evl train --out makes one"
        )
    try:
        content = strict_json(path.read_text(encoding="utf-8"))
        refuse_other_formats(content)
        card = TypeAdapter(ModelCard).validate_python(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text
        raise CheckpointError(f"{path}: damaged ({one_line(error)})") from None
    if wrong := what_cannot_be(card):
        raise CheckpointError(f"{path}: {'; '.join(wrong)}")
    config = card.config
    refuse_code_inside(folder, config.model.decoder, config.backbone.name, *config.evaluation.metrics)
    return replace(card, class_names=clean_names(card.class_names))


def what_cannot_be(card: ModelCard) -> list[str]:
    """What in a card no model can have, in words."""
    pre, names, size = card.preprocessing, card.class_names, card.config.backbone.image_size
    wrong = {
        f"backbone.image_size {size}, but preprocessing for images of {pre.image_size}": (
            size is not None and ((size, size) if isinstance(size, int) else tuple(size)) != tuple(pre.image_size)
        ),
        f"interpolation {pre.interpolation!r}": pre.interpolation not in ("bilinear", "bicubic"),
        f"mean {pre.mean}": not all(map(math.isfinite, pre.mean)),
        f"std {pre.std}": not all(math.isfinite(one) and one > 0 for one in pre.std),
        "wrong rules of segments": not _are_rules(card.segment_rules),
        "a class name twice": len(set(names)) != len(names),
        "a class name that is no text": any("\ud800" <= sign <= "\udfff" for name in names for sign in name),
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


def _are_rules(content: dict | None) -> bool:
    try:
        return content is None or bool(SegmentRules.from_dict(content))
    except ConfigError:
        return False


def read_tensors(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """The tensors of a saved model. Raises CheckpointError if the file is damaged, holds what no model has, or has
    another number of classes than the card."""
    path = folder / WEIGHTS
    try:
        refuse_many_tensors(path)
        with safetensors.safe_open(path, "pt") as file:
            own_id = (file.metadata() or {}).get(PAIR)
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({one_line(error)})") from None
    for name, value in state.items():
        if not is_loadable(value) or not value.isfinite().all():
            what = "numbers that are not finite" if value.is_floating_point() else f"numbers of {value.dtype}"
            raise CheckpointError(f"{path}: {name} holds {what}")
    if are_torn(own_id, card.pair_id):
        raise CheckpointError(
            f"{path} and {CARD} are not of the same model: perhaps a process was stopped while it saved one over the "
            "other; save the model again, or go on with its run by `resume=True`"
        )
    _refuse_other_classes(card, state, path)
    return state


def _refuse_other_classes(card: ModelCard, state: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError if a tensor that has a row for each class has another number of rows than the card."""
    is_zero_shot, count = card.config.model.decoder == "zero_shot", len(card.class_names)
    heads = [name for name in ("head.weight", "head.linear.weight", "head.bias", "head.linear.bias") if name in state]
    rows = ["decoder.text"] if is_zero_shot else heads or ["head.linear.weight"]
    for name in rows + ["zero_shot.text"] * card.config.model.zero_shot_start:
        found = state.get(name)
        if name.endswith(".text") and (found is None or found.ndim != 2):
            raise CheckpointError(f"{path}: does not fit this model: no class vectors ({name})")
        if found is None or found.shape[:1] != (count,):
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}"
            raise CheckpointError(f"{path}: does not fit this model: {name} {what}, but {CARD} has {count} class names")


def weights_file(folder: Path, card: ModelCard) -> str | None:
    """Where the backbone's file is, if it is made of one: where it was when the model was saved, else beside it."""
    weights = card.config.backbone.weights
    if weights is not None and not os.path.isfile(weights) and (folder / Path(weights).name).is_file():
        return str(folder / Path(weights).name)
    return weights


def open_backbone(
    folder: Path,
    card: ModelCard,
    state: dict[str, Tensor],
    *,
    backbone_weights: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    taps: Taps | None = None,
) -> tuple[FrozenBackbone, str | None]:
    """The backbone of a saved model, and its weights' file if it is made of one: out of ``state`` where it is inside,
    else by name, or from the file the card names: where it was, or beside the model.

    ``image_size``: for another one than it was saved with. ``taps``: None for those its decoder reads. Raises
    CheckpointError where it cannot be made, or is not the one the model was trained on.
    """
    config, taps = card.config.backbone, taps_of(card.config.model) if taps is None else taps
    weights = expand_home(str(backbone_weights)) if backbone_weights else weights_file(folder, card)
    config = replace(config, weights=weights)
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    try:
        if inside and backbone_weights is None:
            backbone = create_backbone(config, taps, state=inside)
            backbone.origin = card.origin
            found, known = backbone.weights_hash, card.inside_hash
            backbone._hash = card.backbone_hash  # of the weights as they were read, before any fitting
            if image_size is not None:
                backbone.resize(image_size)
        else:
            sized = config if image_size is None else replace(config, image_size=image_size)
            backbone = create_backbone(sized, taps, trust_origin=True)  # the hash tells
            found, known = backbone.weights_hash, card.backbone_hash
    except BackboneError as error:
        raise CheckpointError(f"{folder}: its backbone cannot be rebuilt: {error}") from error
    if found != known:
        what = "what is inside" if inside and backbone_weights is None else weights or "what that name gives here"
        raise CheckpointError(
            f"{folder} was trained on other backbone weights: {config.name} with hash {str(known)[:12]}…, but {what} "
            f"has {found[:12]}…"
        )
    return backbone, weights


def refuse_other_shapes(
    card: ModelCard, state: dict[str, Tensor], backbone: FrozenBackbone | EncoderFacts, path: Path
) -> None:
    """Before anything is made of the sizes that a card claims: the tensors beside it must have them."""
    expected = grid_of(card, backbone.spec)
    if card.config.model.decoder == "zero_shot":
        return
    try:
        with torch.device("meta"):
            spec = replace(backbone.spec, grid=expected)
            num_maps = card.config.clip.num_frames // backbone.frames_per_map
            decoder = build_decoder(card.config.model, spec, len(backbone.taps), num_maps)
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        if is_import_path(card.config.model.decoder):
            # its constructor may need real tensors; loading compares the shapes once it is made
            return
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path / CARD}: no decoder can have these sizes: {reason[:200]}") from None
    for name, value in decoder.state_dict().items():
        found = state.get(f"decoder.{name}")
        if found is None or found.shape != value.shape:
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}, not {tuple(value.shape)}"
            raise CheckpointError(f"{path / WEIGHTS}: does not fit this model: decoder.{name} {what}")


def embedding_width(card: ModelCard, state: dict[str, Tensor]) -> int | None:
    """E of the class vectors (Y,E) of a model that has some: with it no text tower is asked."""
    if card.config.model.decoder != "zero_shot" and not card.config.model.zero_shot_start:
        return None
    return state["decoder.text" if card.config.model.decoder == "zero_shot" else "zero_shot.text"].shape[1]


def grid_of(card: ModelCard, spec: BackboneSpec) -> tuple[int, int]:
    """(h, w) of the patches a model was trained on."""
    height, width = (size // patch for size, patch in zip(card.preprocessing.image_size, spec.patch_size, strict=True))
    return height, width


def is_hub_id(path: str | Path) -> bool:
    """Whether a path that is not there may name a model on the hub: ``owner/name``, and no folder ``owner`` here."""
    owner = Path(path).parent
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)) is not None and not owner.exists()


def fetch(hub_id: str, revision: str | None = None, **options) -> Path:
    """The folder of a model of the hub, in its cache: fetched if it is not there, also used offline.

    Raises CheckpointError where there is no such model, or no network and no copy.
    """
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[WEIGHTS, CARD], **options))
    except LocalEntryNotFoundError:
        at = f"{hub_id} at {revision}" if revision else hub_id
        raise CheckpointError(
            f"{at} is no folder here, and cannot be fetched from the Hugging Face Hub (no network, or "
            f"HF_HUB_OFFLINE is set). Where there is one: hf download {hub_id} {WEIGHTS} {CARD} --local-dir FOLDER"
        ) from None
    except Exception as error:  # hub, network and disk errors come in a dozen types
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{hub_id} is no folder here, and could not be fetched from the Hugging Face Hub: "
            f"{reason[0] if reason else type(error).__name__}"
        ) from None


def refuse_other_formats(content: Any) -> None:
    """Raises CheckpointError unless the content of a ``model.json`` has this evl's version."""
    if not isinstance(content, dict):
        raise CheckpointError(f"expected an object with fields, found {type(content).__name__}")
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < FORMAT_VERSION:
        raise CheckpointError(f"format_version is {version!r}, expected {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(f"format {version}, this evl reads up to {FORMAT_VERSION}; upgrade evl")
