"""Versions of ``model.json``: what is written now, and how older ones become it.

A change that an older evl would misread, or that this one must translate, raises FORMAT_VERSION and adds a step to
``_STEPS``; a file of each version stays in the tests for good. Fields with a default may be added without.
"""

from __future__ import annotations

from typing import Any

from evl.errors import CheckpointError
from evl.models.card import FORMAT_VERSION

WEIGHTS, CARD = "model.safetensors", "model.json"
MADE = "<!-- made by evl from model.json, and again when the model is saved; without this line it stays -->"


def upgraded(content: Any) -> dict[str, Any]:
    """The content of a ``model.json`` of any version, as the present one has it; the argument stays as it is.

    Raises CheckpointError for a version that is newer, or none.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"expected an object with fields, found {type(content).__name__}")
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(f"format_version is {version!r}, expected a number such as {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(f"format {version}, this evl reads up to {FORMAT_VERSION}; upgrade evl")
    for step in _STEPS[version - 1 :]:
        content = step(content)
    return {**content, "format_version": FORMAT_VERSION}


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """``model.num_layers`` became ``model.taps``."""
    model = content.get("model")
    if not isinstance(model, dict) or "num_layers" not in model:
        return content
    model = {("taps" if name == "num_layers" else name): value for name, value in model.items()}
    return {**content, "model": {**model, "taps": f"last {model['taps']}"}}


_STEPS = (_from_1,)
