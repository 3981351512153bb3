"""A model to and from disk: ``model.safetensors`` (what was trained) and ``model.json`` (all that belongs to it)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from evl._version import __version__
from evl.backbones import FrozenBackbone, Taps
from evl.backbones.base import hash_weights, tapped_blocks
from evl.config import ModelConfig, RunConfig
from evl.errors import CheckpointError, ConfigError
from evl.models import Classifier, ClassifierHead
from evl.models.card import ModelCard
from evl.models.registry import architecture_of, is_loadable, setting_of, taps_of
from evl.models.resize import resized_state
from evl.runtime.files import expand_home, json_bytes, pair_id, write_together
from evl.saving.folder import (
    CARD,
    PAIR,
    WEIGHTS,
    find_model,
    grid_of,
    open_backbone,
    read_card,
    read_tensors,
    refuse_other_shapes,
    what_cannot_be,
)
from evl.types import BackboneSpec

log = logging.getLogger("evl")
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def save_model(
    model: Classifier,
    folder: str | Path,
    *,
    scores: dict[str, float | str] | None = None,
    with_backbone: bool | None = None,
    paths: Literal["all", "weights", "none"] = "all",
) -> None:
    """Writes the trained weights and the card. ``with_backbone``: the frozen encoder's too, so that it is whole; None:
    as it came, where it was loaded.

    ``scores``: None keeps what the card says, unless the trained weights have changed since: then the saved card has
    none, which is logged. ``paths``: which full paths the card has: "all", only that of the encoder's file, which
    loading needs ("weights"), or "none". Of the others it has the name of the file or folder.
    Raises CheckpointError for a model that could not be loaded again, SaveError if the disk refuses; old files then
    remain.
    """
    folder = expand_home(Path(folder))
    if model.card is None:
        raise CheckpointError("this model says nothing of its backbone and pixels (no card), so it cannot be saved")
    types = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    if len(types) > 1 or not types <= set(TYPES):
        raise CheckpointError(f"a model with weights of {' and '.join(sorted(types))} is not saved; make them one type")
    trained = model.trainable_state()
    _refuse_unloadable(model, trained, folder)
    if with_backbone is None:
        with_backbone = model.card.with_backbone and model.backbone is not None
    if with_backbone and model.backbone is None:
        raise CheckpointError("this model was trained on stored features, and has no encoder to save; load it first")
    config = model.card.config
    if config.backbone.weights is not None:
        weights = str(Path(config.backbone.weights).absolute())
        config = replace(config, backbone=replace(config.backbone, weights=weights))
    if paths != "all":
        shared = config.without_folders()
        config = shared if paths == "none" else replace(shared, backbone=config.backbone)
    state = {name: value.detach().cpu() for name, value in model.backbone.state_dict().items()} if with_backbone else {}
    card = scored_card(model, scores)
    if model.card.scores and not card.scores:
        log.warning(
            "%s: the scores of before are left out, because the trained weights have changed since; evl evaluate "
            "measures new ones", folder,
        )  # fmt: skip
    card = replace(
        card,
        config=config,
        backbone_hash=model.encoder.weights_hash,
        with_backbone=with_backbone,
        inside_hash=hash_weights(state) if with_backbone else None,
        dtype=types.pop(),
        evl_version=__version__,
    )
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.items()}
    tensors |= {f"backbone.{name}": _narrowest(value).contiguous() for name, value in state.items()}
    weights = safetensors.torch.save(tensors)
    content = TypeAdapter(ModelCard).dump_python(card, mode="json")
    content["pair_id"] = pair_id(json_bytes(content | {"pair_id": None}), weights)
    weights = with_metadata(weights, {"format": "pt", PAIR: content["pair_id"]})
    write_together({folder / WEIGHTS: weights, folder / CARD: json_bytes(content, indent=2)})


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata in the given order. safetensors itself writes several entries in a random order,
    and the same model has the same bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": metadata, **json.loads(content[8:end])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))


def scored_card(model: Classifier, scores: dict[str, float | str] | None = None) -> ModelCard:
    """The model's card with ``scores`` of its present weights, or those that it has, if they still are of these."""
    card = model.card
    if not (scores or card.scores):
        return replace(card, scores=scores, scored_hash=None)
    trained = hash_weights(model.trainable_state())
    loaded_scores, loaded_hash = model._scored
    if scores is None and card.scores == loaded_scores and trained != loaded_hash:
        return replace(card, scores=None, scored_hash=None)
    return replace(card, scores=card.scores if scores is None else scores, scored_hash=trained)


def _refuse_unloadable(model: Classifier, trained: dict[str, Tensor], folder: Path) -> None:
    """CheckpointError for a model of another form than its card describes, or with names for other classes."""
    card, names = model.card, model.class_names
    if wrong := what_cannot_be(card):
        raise CheckpointError(f"not saved: {'; '.join(wrong)}")
    outputs = len(names) if model.num_outputs is None else model.num_outputs
    if len(names) != outputs or outputs < 2:
        raise CheckpointError(
            f"not saved: the model has {outputs} outputs and {len(names)} class names; set model.class_names to one "
            "name for each output, at least two"
        )
    if model.zero_shot is not None and len(model.zero_shot.text) != outputs:
        raise CheckpointError(
            f"not saved: the head has {outputs} outputs, but training started from the zero-shot scores of "
            f"{len(model.zero_shot.text)} classes; start a new training for other classes"
        )
    if card.config.model.decoder == "zero_shot":
        return
    for name, value in trained.items():
        if not is_loadable(value):
            raise CheckpointError(
                f"not saved, because it could not be loaded again: {name} holds {value.dtype}; make it a tensor of "
                "floats, or a buffer with persistent=False"
            )
    try:
        refuse_other_shapes(card, trained, model.encoder, folder)
    except CheckpointError as error:
        raise CheckpointError(f"not saved, because it could not be loaded again: {error}") from None
    head = {name: value for name, value in trained.items() if name.startswith("head.")}
    width = getattr(model.decoder, "width", model.encoder.spec.width)
    with torch.device("meta"):
        expected = head_of(head, ClassifierHead(width, outputs)).state_dict()
    shapes = {f"head.{name}": value.shape for name, value in expected.items()}
    if {name: value.shape for name, value in head.items()} != shapes:
        found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in head.items()) or "nothing"
        wanted = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise CheckpointError(
            f"not saved, because it could not be loaded again: the head holds {found}, expected {wanted}. Put in an "
            "evl.models.ClassifierHead, or a torch.nn.Linear of the decoder's width"
        )


def head_of(state: Mapping[str, Tensor], usual: ClassifierHead) -> nn.Module:
    """A head that takes the tensors ``head.…`` of a file: the ``usual`` one, the same without bias, or a linear layer
    alone, which a person may have put in its place."""
    width, outputs = usual.linear.in_features, usual.linear.out_features
    if "head.weight" in state:
        return nn.Linear(width, outputs, bias="head.bias" in state)
    if "head.linear.weight" in state and "head.linear.bias" not in state:
        usual.linear = nn.Linear(width, outputs, bias=False)
    return usual


def _narrowest(value: Tensor) -> Tensor:
    """The same numbers in half the bytes, where they came in half precision: so do OpenAI's archives."""
    for dtype in (torch.float16, torch.bfloat16):
        if value.dtype == torch.float32 and torch.equal((narrow := value.to(dtype)).float(), value):
            return narrow
    return value


def changed(config, **values):
    """A copy of a part of a config, checked. Raises ConfigError."""
    try:
        return replace(config, **values)
    except ValidationError as error:
        problems = error.errors()
        messages = dict.fromkeys(problem["msg"] for problem in problems)
        where = f"{problems[0]['loc'][0]}: " if problems[0]["loc"] else ""
        raise ConfigError(f"{where}{', or '.join(messages)}".replace("Value error, ", "")) from None


def differences(trained: ModelCard, now: ModelCard) -> list[str]:
    """What is not as it was trained, in words."""
    notices, clip, was, model = [], now.config.clip, trained.config.clip, trained.config.model
    if clip.num_frames != was.num_frames:
        how = " (temporal positions are interpolated)" if setting_of(model, "temporal_position") else ""
        notices.append(f"clips of {clip.num_frames} frames, not {was.num_frames}{how}")
    if clip.sampling == "dense" and clip.spacing != was.spacing:
        both = clip.frames_per_second is None and was.frames_per_second is None
        notices.append(f"{clip.spacing}, not {was.spacing.removeprefix('stride ') if both else was.spacing}")
    size, trained_size = ("×".join(map(str, card.preprocessing.image_size)) for card in (now, trained))
    if size != trained_size:
        tables = " and the tables of relative positions" if setting_of(model, "cross_frame") else ""
        notices.append(
            f"images of {size} pixels, not {trained_size} (the backbone's positions{tables} are interpolated)"
        )
    return notices


def backbone_to_start(config: RunConfig, taps: Taps | None = None) -> FrozenBackbone | None:
    """The backbone of ``config.training.init``, if the config names the same: out of the model where it is inside, or
    from a file beside it. None where the config names another, or there is nothing to start from.

    ``taps``: None for those that the config's decoder reads.
    """
    if config.training.init is None:
        return None
    path = find_model(config.training.init)
    if not (path / CARD).is_file():  # gone since: a run that has a checkpoint can do without
        return None
    card = read_card(path)
    own, theirs = config.backbone, card.config.backbone
    if replace(own, image_size=None, weights=None) != replace(theirs, image_size=None, weights=None):
        return None
    if Path(own.weights or "").name != Path(theirs.weights or "").name:
        return None
    if own.image_size is None and theirs.image_size is not None:  # back to the weights' own size: made anew
        return None
    size = None if own.image_size == theirs.image_size else own.image_size
    taps = taps_of(config.model) if taps is None else taps
    return open_backbone(path, card, read_tensors(path, card), image_size=size, taps=taps)[0]


def start_from(model: Classifier, path: str | Path) -> None:
    """Puts a saved model's trained weights into ``model``, made for other classes, clips or image sizes.

    Sizes are fitted as ``load`` does; the classifier is taken over only where the class names are the same, in the
    same order. Both are logged. A backbone that came inside stays inside when the model is saved.
    Raises CheckpointError where backbone or decoder are not the same.
    """
    path = find_model(path)
    card, own = read_card(path), model.card
    if card.backbone_hash != model.encoder.weights_hash:
        other = card.config.backbone.name
        raise CheckpointError(f"{path} stands on another backbone, {other}: it cannot be the start here")
    here, there = (_form(one.config.model, model.encoder.spec) for one in (own, card))
    differing = [
        f"model.{name} is {there.get(name)} there and {here.get(name)} here"
        for name in here | there
        if here.get(name) != there.get(name)
    ]
    if differing:
        raise CheckpointError(f"{path} has a decoder of another form: {', '.join(differing)}")
    state = read_tensors(path, card)
    refuse_other_shapes(card, state, model.encoder, path)
    notices = differences(card, own)
    if card.class_names != model.class_names:
        notices.append("other classes: the classifier starts anew")
        new = {k: v for k, v in model.trainable_state().items() if k.startswith(("head.", "zero_shot."))}
        state = {k: v for k, v in state.items() if not k.startswith(("head.", "zero_shot."))} | new
    put_trained(model, state, card, path)
    model.card = replace(own, with_backbone=card.with_backbone)
    log.info("starting from %s%s", path, f" ({'; '.join(notices)})" if notices else "")


def _form(config: ModelConfig, spec: BackboneSpec) -> dict[str, object]:
    """What a model and its start must have alike."""
    taps = tapped_blocks(taps_of(config), spec.depth)
    return architecture_of(config, spec) | {"taps": taps, "zero_shot_start": config.zero_shot_start}


def put_trained(model: Classifier, state: dict[str, Tensor], trained: ModelCard, path: Path) -> None:
    """Puts the trained weights of a file into a model, fitted to its size."""
    spec = model.encoder.spec
    decoder = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    decoder = resized_state(decoder, model.decoder.state_dict(), grid_of(trained, spec), spec.grid)
    rest = {k: v for k, v in state.items() if not k.startswith(("decoder.", "backbone."))}
    known = {name.split(".")[0] for name in model.trainable_state()}
    if extra := [name for name in rest if name.split(".")[0] not in known]:
        raise CheckpointError(f"{path / WEIGHTS}: does not fit this model, which has no {extra[0]}")
    try:
        model.load_trainable_state(rest | {f"decoder.{name}": value for name, value in decoder.items()})
    except RuntimeError as error:
        lines = [line.strip()[:300] for line in str(error).splitlines()[:3]]
        raise CheckpointError(f"{path / WEIGHTS}: does not fit this model: {' '.join(lines)}") from None
