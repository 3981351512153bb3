"""The files of a saved model, and which version of ``model.json`` is read."""

from __future__ import annotations

from typing import Any

from evl.errors import CheckpointError
from evl.models.card import FORMAT_VERSION

WEIGHTS, CARD = "model.safetensors", "model.json"
MADE = "<!-- made by evl from model.json, and again when the model is saved; without this line it stays -->"


def refuse_other_formats(content: Any) -> None:
    """Raises CheckpointError unless the content of a ``model.json`` has this evl's version."""
    if not isinstance(content, dict):
        raise CheckpointError(f"expected an object with fields, found {type(content).__name__}")
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < FORMAT_VERSION:
        raise CheckpointError(f"format_version is {version!r}, expected {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(f"format {version}, this evl reads up to {FORMAT_VERSION}; upgrade evl")
