"""The page of a model: what a person who gets it must know, from its ``model.json`` alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard as Readme
from huggingface_hub import ModelCardData

from evl.decoders import find_decoder
from evl.saving.formats import MADE

if TYPE_CHECKING:
    from evl.models.card import ModelCard

_SCORES = {
    "top1": "top-1 (% of videos)",
    "chance": "chance (% of videos: always the most frequent class)",
    "top5": "top-5 (% of videos)",
    "mean_class_accuracy": "mean class accuracy (%)",
}


def readme(card: ModelCard, repo_id: str | None = None) -> Readme:
    """A model card in Markdown, with the hub's fields in front. No licence is claimed for the model itself."""
    data = ModelCardData(
        library_name="evl",
        pipeline_tag="video-classification",
        tags=["video-classification", "action-recognition", "evl"],
        base_model=card.origin.source if card.origin and card.origin.kind == "hub" else None,
    )
    parts = [f"---\n{data.to_yaml()}\n---\n", f"# {repo_id or 'A video classifier'}\n", _what(card)]
    parts += [_use(repo_id or "FOLDER"), _scores(card), _classes(card), _backbone(card), MADE]
    return Readme("\n".join(part for part in parts if part))


def _what(card: ModelCard) -> str:
    clip, pre = card.clip, card.preprocessing
    kind = find_decoder(card.model.decoder).described
    size = "×".join(map(str, pre.image_size))
    frames = f"{clip.num_frames} frames ({clip.spacing})"
    lines = [
        f"Tells {len(card.class_names)} classes of videos: {kind} on the "
        f"frozen image encoder `{card.backbone.name}`. It looks at clips of {frames} of "
        f"{size} pixels (H×W). Made with evl {card.evl_version}.\n"
    ]
    if card.data:
        lines.append(f"Trained on: {_plain(card.data)}.\n")
    if card.used_otherwise:
        lines.append(f"Used otherwise than it was trained: {_plain('; '.join(card.used_otherwise))}.\n")
    return "\n".join(lines)


def _use(where: str) -> str:
    return (
        "## Use\n\n```sh\npip install evl\n"
        f"evl predict {where} VIDEO\nevl evaluate {where} --data FOLDER_OR_MANIFEST\n```\n\n"
        f'```python\nimport evl\n\nmodel = evl.load("{where}")\nresult = evl.predict(model, ["video.mp4"])\n```\n'
    )


def _scores(card: ModelCard) -> str:
    if not card.scores:
        return "## Scores\n\nNone were measured.\n"
    numbers = {name: value for name, value in card.scores.items() if isinstance(value, int | float)}
    rows = [f"| {text} | {numbers[name]:.2f} |" for name, text in _SCORES.items() if name in numbers]
    protocol = " ".join(str(card.scores.get("protocol", "not written down")).replace("`", "").split())
    table = "\n".join(["| | |", "|---|---|", *rows, ""]) if rows else ""
    return f"## Scores\n\n{table}\nProtocol: `{protocol}`\n"


def _classes(card: ModelCard) -> str:
    names = "\n".join(f"{y}. {_plain(name)}" for y, name in enumerate(card.class_names))
    return f"## Classes\n\n{names}\n"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: on one line, its signs escaped."""
    text = "".join(f"\\{sign}" if sign in r"\`*_{}[]<>#|&!~$" else sign for sign in " ".join(text.split()))
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # no list within a list, no line beneath a heading


def _backbone(card: ModelCard) -> str:
    origin = card.origin
    lines = [f"- name: `{card.backbone.name}`"]
    if origin is not None:
        kind = {"embedded": "come with evl", "random": "random, untrained"}.get(origin.kind, origin.source)
        lines += [f"- weights: {kind} (layout: {origin.layout})", f"- activation: {origin.activation}"]
    license = (origin.license if origin else None) or "not known: see where its weights come from"
    lines += [f"- licence of its weights: {license}", f"- hash of its weights (SHA-256): `{card.backbone_hash}`", ""]
    if card.with_backbone:
        lines.append("The weights are inside `model.safetensors`.")
    else:
        lines.append("The weights are not inside: evl fetches them by that name, or takes a file, and checks the hash.")
    return "## Backbone\n\n" + "\n".join(lines) + "\n"
