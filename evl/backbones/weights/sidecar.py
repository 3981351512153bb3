"""Reads the small JSON files beside a weights file, which record settings that no tensor holds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def read_sidecar(path: Path, name: str) -> dict:
    """Returns the JSON object in the file ``name`` beside ``path``; {} if there is none of at most 1 MiB."""
    file = path.parent / name
    try:
        if not file.is_file() or file.stat().st_size > 1 << 20:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        logger.warning("%s cannot be read, so %s is not checked against it", file, path.name)
        return {}
    return content if isinstance(content, dict) else {}


def vision_config(config: dict) -> dict:
    """Returns the image tower's part of a ``config.json`` of transformers; all of it if there is only that tower.

    Older CLIPs call it ``vision_config_dict``, which wins if both are there, as in transformers.
    """
    for name in ("vision_config_dict", "vision_config"):
        if isinstance(config.get(name), dict):
            return config[name]
    return {} if "vision_config" in config else config
