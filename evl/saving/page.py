"""The page of a model: what a person who gets it must know, from its ``model.json`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard as Readme
from huggingface_hub import ModelCardData

from evl.decoders import find_decoder
from evl.runtime.text import plain, render, table
from evl.saving.folder import MADE

if TYPE_CHECKING:
    from evl.models.card import ModelCard

_TEMPLATE = Path(__file__).with_name("readme.md.j2")


def readme(card: ModelCard, repo_id: str | None = None) -> Readme:
    """A model card in Markdown, with the hub's fields in front. No licence is claimed for the model itself."""
    data = ModelCardData(
        library_name="evl",
        pipeline_tag="video-classification",
        tags=["video-classification", "action-recognition", "evl"],
        base_model=card.origin.source if card.origin and card.origin.kind == "hub" else None,
    )
    given = {name: value for name, value in (card.scores or {}).items() if isinstance(value, int | float)}
    titles = (card.scores or {}).get("titles")
    titles = titles if isinstance(titles, dict) else {name: name for name in given}
    rows = [(plain(titles[name]), f"{value:.2f}") for name, value in given.items() if name in titles]
    scores, decoder = table(("", ""), rows) if rows else (), find_decoder(card.config.model.decoder).phrase
    values = {"data": data.to_yaml(), "scores": scores, "decoder": decoder, "repo_id": repo_id, "made": MADE}
    return Readme(render(_TEMPLATE, card=card, origin=card.origin, **values))
