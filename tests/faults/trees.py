"""Folders compared: the same files with the same bytes, but for times, speeds and identifiers."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import torch

from evl.runtime.files import is_temporary

TIMES = {  # names in JSON whose values are times, speeds or counts of one call
    "seconds", "clips_per_second", "wait_share", "training_seconds", "judging_seconds", "loading", "num_made",
    "num_kept",
}  # fmt: skip
_DATE = re.compile(r"\d{8}-\d{6}")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")


def tree_of(folder: Path) -> dict[str, object]:
    """Path below ``folder`` → a form of its content without times; None for a folder."""
    tree: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = _DATE.sub("DATE", str(path.relative_to(folder)))
        if _EVENTS.fullmatch(path.name):
            tree[str(Path(name).with_name("events"))] = "events"
        else:
            tree[name] = None if path.is_dir() else _form(path)
    return tree


def _form(path: Path) -> object:
    content = path.read_bytes()
    if path.suffix == ".pt":
        try:
            return repr(_without_times(torch.load(io.BytesIO(content), weights_only=True)))
        except Exception:
            return content
    if path.suffix == ".json":
        try:
            return _without_times(json.loads(content))
        except ValueError:
            return content
    if path.suffix == ".jsonl":
        try:
            return [_without_times(json.loads(line)) for line in content.splitlines()]
        except ValueError:
            return content
    return content


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_times(one) for name, one in value.items() if name not in TIMES}
    if isinstance(value, list | tuple):
        return [_without_times(one) for one in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


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
