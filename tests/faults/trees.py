"""Folders compared: the same files with the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from evl.runtime.files import is_temporary

_EVENTS = re.compile(r"events\.out\.tfevents\..*")
ONE_CALL = ("num_made", "num_kept")  # in ``prepare.json``: copies of this call, and of those before


def tree_of(folder: Path) -> dict[str, object]:
    """Path below ``folder`` → its content; None for a folder. Files of TensorBoard have their times in their names: one
    stands for all."""
    tree: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if _EVENTS.fullmatch(path.name):
            tree[str(Path(name).with_name("events"))] = "events"
        elif path.name == "prepare.json":
            tree[name] = _without_counts(path)
        else:
            tree[name] = None if path.is_dir() else path.read_bytes()
    return tree


def _without_counts(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return "damaged"
    if content["report"] is not None:
        content["report"] = {name: value for name, value in content["report"].items() if name not in ONE_CALL}
    return content


def leftovers(tree: dict[str, object]) -> list[str]:
    """Temporary files, and locks."""
    return [path for path in tree if is_temporary(Path(path).name) or path.endswith("evl.lock")]


def differences(found: dict[str, object], expected: dict[str, object]) -> str:
    """What differs, in words; nothing: ''."""
    parts = {
        "missing": sorted(expected.keys() - found.keys()),
        "left behind": sorted(found.keys() - expected.keys()),
        "other content": sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name]),
    }
    return "; ".join(f"{what}: {', '.join(names[:8])}" for what, names in parts.items() if names)
