"""What lies beside a weights file and tells what the tensors cannot: the library's small JSON files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def json_beside(path: Path, name: str) -> dict:
    """A small JSON object in the file's folder; {} if there is none."""
    file = path.parent / name
    try:
        if not file.is_file() or file.stat().st_size > 1 << 20:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        logger.warning("%s cannot be read, so it does not say what %s is", file, path.name)
        return {}
    return content if isinstance(content, dict) else {}


def vision_config(config: dict) -> dict:
    """The image tower's part of a ``config.json`` of transformers; all of it where there is only that tower.

    Older CLIPs have it as ``vision_config_dict``, which counts where both are there (so transformers reads them).
    """
    for name in ("vision_config_dict", "vision_config"):
        if isinstance(config.get(name), dict):
            return config[name]
    return {} if "vision_config" in config else config
