"""A model on disk: ``model.safetensors`` (what was trained) and ``model.json`` (all that belongs to it)."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from evl import __version__
from evl.assembly.build import ModelCard, attention_sizes, build_classifier, build_decoder, taps_of
from evl.assembly.formats import CARD, WEIGHTS, upgraded
from evl.assembly.hub import VideoClassifier, fetch, is_hub_id
from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.base import tapped_blocks
from evl.config import ModelConfig, RunConfig
from evl.errors import BackboneError, CheckpointError, ConfigError
from evl.files import write_atomically
from evl.models.resize import resized_state
from evl.types import BackboneSpec

log = logging.getLogger("evl")


def save_model(
    model: VideoClassifier,
    folder: str | Path,
    *,
    scores: dict[str, float | str] | None = None,
    with_backbone: bool = False,
) -> None:
    """Writes the trained weights and the card. ``with_backbone``: the frozen encoder's too, so that it is whole.

    ``scores``: None keeps what the card says. Raises SaveError if the disk refuses; old files then remain.
    """
    folder = Path(folder)
    if model.card is None:
        raise CheckpointError("this model says nothing of its backbone and pixels (no card), so it cannot be saved")
    weights = model.card.backbone.weights
    card = replace(
        model.card,
        backbone=replace(model.card.backbone, weights=str(Path(weights).absolute()) if weights else None),
        backbone_hash=model.backbone.weights_hash,
        with_backbone=with_backbone,
        scores=model.card.scores if scores is None else scores,
        evl_version=__version__,
    )
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.trainable_state().items()}
    if with_backbone:
        backbone = model.backbone.state_dict().items()
        tensors |= {f"backbone.{name}": _narrowest(value.detach().cpu()).contiguous() for name, value in backbone}
    with write_atomically(folder / WEIGHTS) as file:
        file.write(safetensors.torch.save(tensors, metadata={"format": "pt", "evl": __version__}))
    with write_atomically(folder / CARD, text=True) as file:
        json.dump(TypeAdapter(ModelCard).dump_python(card, mode="json"), file, indent=2, ensure_ascii=False)


def _narrowest(value: Tensor) -> Tensor:
    """The same numbers in half the bytes, where they came in half precision: so do OpenAI's archives."""
    for dtype in (torch.float16, torch.bfloat16):
        if value.dtype == torch.float32 and torch.equal((narrow := value.to(dtype)).float(), value):
            return narrow
    return value


def read_card(folder: str | Path) -> ModelCard:
    """``model.json`` of a run or model folder, of any version. Raises CheckpointError with the reason."""
    path = Path(folder) / CARD
    if not path.is_file():
        if (Path(folder) / "config.yaml").is_file():
            raise CheckpointError(f"{folder}: this run is not finished; go on with: evl train --out {folder} --resume")
        raise CheckpointError(f"{folder}: no saved model here (no {CARD}); expected the folder of a finished run")
    try:
        return TypeAdapter(ModelCard).validate_python(upgraded(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text
        raise CheckpointError(f"{path}: damaged ({error})") from None


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    backbone_weights: str | Path | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    revision: str | None = None,
) -> VideoClassifier:
    """A saved classifier, in evaluation mode: backbone rebuilt, trained weights put in.

    ``path``: the folder of a run or model, or ``owner/name`` of the Hugging Face Hub (at ``revision``); what was
    fetched once is found offline. ``backbone_weights``: where the backbone's file is now, if it was loaded from one
    and has moved. ``num_frames``, ``image_size`` (a side, or (H, W)): for other clips than it was trained on, with
    temporal positions, relative tables and the backbone's positions interpolated, which is logged; ``stride`` goes
    with them.

    Raises CheckpointError if there is no such model, it is damaged, or its backbone's weights are not those it was
    trained on.
    """
    path = find_model(path, revision)
    card = read_card(path)
    weights = backbone_weights or card.backbone.weights
    if weights is not None and not Path(weights).is_file() and (path / Path(weights).name).is_file():
        weights = path / Path(weights).name
    state = _read_tensors(path / WEIGHTS)
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    taps = taps_of(card.model)
    moved = replace(card.backbone, weights=str(weights) if weights is not None else None)
    resized = moved if image_size is None else _changed(moved, image_size=image_size)
    try:
        if inside and backbone_weights is None:
            backbone = create_backbone(moved, taps, state=inside)
            backbone.origin = card.origin
            if moved.image_size is not None:  # the hash is of positions before they were fitted to that size
                backbone._hash = card.backbone_hash
            if image_size is not None:
                backbone.resize(image_size)
        else:
            backbone = create_backbone(resized, taps, trust_origin=True)  # the hash below tells
    except BackboneError as error:
        raise CheckpointError(f"{path}: its backbone cannot be rebuilt: {error}") from error
    if backbone.weights_hash != card.backbone_hash:
        raise CheckpointError(
            f"{path} was trained on other backbone weights: {card.backbone.name} with hash "
            f"{card.backbone_hash[:12]}…, but {weights or 'what that name gives here'} has "
            f"{backbone.weights_hash[:12]}…"
        )
    wanted = {"num_frames": num_frames, "stride": stride}
    clip = _changed(card.clip, **{name: value for name, value in wanted.items() if value is not None})
    preprocessing = card.preprocessing
    if image_size is not None:
        preprocessing = replace(preprocessing, image_size=backbone.spec.image_size)
    config = RunConfig(backbone=resized, model=card.model, clip=clip, evaluation=card.evaluation)
    _refuse_other_shapes(card, state, backbone, path)
    text = state.get("decoder.text", state.get("zero_shot.text"))  # (Y,E), where there is one
    width = None if text is None else text.shape[-1]
    model = build_classifier(config, card.class_names, backbone=backbone, embedding_width=width)
    origin = card.origin or backbone.origin  # of a format that did not keep it
    model.card = replace(card, backbone=resized, clip=clip, preprocessing=preprocessing, origin=origin)
    if notices := _differences(card, model.card):
        log.warning("%s is used otherwise than it was trained: %s", path, "; ".join(notices))
        model.card = replace(model.card, scores=None)  # which were of the model as it was
    _refuse_inconsistent(model, path)
    _put_trained(model, state, card, path)
    return model.to(device).eval()


def _changed(config, **values):
    """A copy of a part of a config, checked. Raises ConfigError."""
    try:
        return replace(config, **values)
    except ValidationError as error:
        problems = error.errors()
        messages = dict.fromkeys(problem["msg"] for problem in problems)
        raise ConfigError(f"{problems[0]['loc'][0]}: {', or '.join(messages)}") from None


def _differences(trained: ModelCard, now: ModelCard) -> list[str]:
    """What is not as it was trained, in words."""
    notices = []
    is_evl = trained.model.decoder == "evl"
    if now.clip.num_frames != trained.clip.num_frames:
        how = " (temporal positions are interpolated)" if is_evl and trained.model.temporal_position else ""
        notices.append(f"clips of {now.clip.num_frames} frames, not {trained.clip.num_frames}{how}")
    if now.clip.sampling == "dense" and now.clip.stride != trained.clip.stride:
        notices.append(f"stride {now.clip.stride}, not {trained.clip.stride}")
    size, trained_size = ("×".join(map(str, card.preprocessing.image_size)) for card in (now, trained))
    if size != trained_size:
        tables = " and the tables of relative positions" if is_evl and trained.model.cross_frame else ""
        notices.append(
            f"images of {size} pixels, not {trained_size} (the backbone's positions{tables} are interpolated)"
        )
    return notices


def _refuse_other_shapes(card: ModelCard, state: dict[str, Tensor], backbone: FrozenBackbone, path: Path) -> None:
    """Before anything is made of the sizes that a card claims: the tensors beside it must have them."""
    if card.model.decoder == "zero_shot":
        return
    try:
        with torch.device("meta"):
            spec = replace(backbone.spec, grid=_grid_of(card, backbone.spec))
            decoder = build_decoder(card.model, spec, len(backbone.taps), card.clip.num_frames)
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path / CARD}: no decoder can have these sizes: {reason[:200]}") from None
    for name, value in decoder.state_dict().items():
        found = state.get(f"decoder.{name}")
        if found is None or found.shape != value.shape:
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}, not {tuple(value.shape)}"
            raise CheckpointError(f"{path / WEIGHTS}: does not fit this model: decoder.{name} {what}")


def _grid_of(card: ModelCard, spec: BackboneSpec) -> tuple[int, int]:
    """(h, w) of the patches a model was trained on."""
    height, width = (size // patch for size, patch in zip(card.preprocessing.image_size, spec.patch_size, strict=True))
    return height, width


def _refuse_inconsistent(model: VideoClassifier, path: Path) -> None:
    card, spec = model.card, model.backbone.spec
    pre = card.preprocessing
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
        raise CheckpointError(f"{path / CARD}: {'; '.join(wrong)}")


def _form(config: ModelConfig, spec: BackboneSpec) -> dict[str, object]:
    """What decides a decoder's form, with what is left to the backbone filled in."""
    filled = dict(zip(("qkv_width", "num_heads"), attention_sizes(config, spec), strict=True))
    filled["taps"] = tapped_blocks(config.taps, spec.depth)
    only_training = ("mlp_dropout", "head_dropout", "query_init", "prompts")
    names = [field.name for field in fields(config) if field.name not in only_training]
    return {name: filled.get(name, getattr(config, name)) for name in names}


def start_from(model: VideoClassifier, path: str | Path) -> None:
    """Puts a saved model's trained weights into ``model``, made for other classes, clips or image sizes.

    Sizes are fitted as ``load`` does; the classifier is taken over only where the class names are the same, in the
    same order. Both are logged. Raises CheckpointError where backbone or decoder are not the same.
    """
    path = find_model(path)
    card, own = read_card(path), model.card
    if card.backbone_hash != model.backbone.weights_hash:
        raise CheckpointError(f"{path} stands on another backbone, {card.backbone.name}: it cannot be the start here")
    here, there = (_form(one.model, model.backbone.spec) for one in (own, card))
    differing = [
        f"model.{name} is {there[name]} there and {here[name]} here" for name in here if here[name] != there[name]
    ]
    if differing:
        raise CheckpointError(f"{path} has a decoder of another form: {', '.join(differing)}")
    state = _read_tensors(path / WEIGHTS)
    notices = _differences(card, own)
    if card.class_names != model.class_names:
        notices.append("other classes: the classifier starts anew")
        new = {k: v for k, v in model.trainable_state().items() if k.startswith(("head.", "zero_shot."))}
        state = {k: v for k, v in state.items() if not k.startswith(("head.", "zero_shot."))} | new
    _put_trained(model, state, card, path)
    log.info("starting from %s%s", path, f" ({'; '.join(notices)})" if notices else "")


def find_model(path: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: ``path`` itself, or where the hub's ``owner/name`` lies in the cache."""
    return fetch(str(path), revision) if not Path(path).exists() and is_hub_id(path) else Path(path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from None


def _put_trained(model: VideoClassifier, state: dict[str, Tensor], trained: ModelCard, path: Path) -> None:
    """Puts the trained weights of a file into a model, fitted to its size."""
    spec = model.backbone.spec
    decoder = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    decoder = resized_state(decoder, model.decoder.state_dict(), _grid_of(trained, spec), spec.grid)
    rest = {k: v for k, v in state.items() if not k.startswith(("decoder.", "backbone."))}
    try:
        model.load_trainable_state(rest | {f"decoder.{name}": value for name, value in decoder.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[:3]]
        raise CheckpointError(f"{path / WEIGHTS}: does not fit this model: {' '.join(lines)}") from None
