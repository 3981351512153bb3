"""What benchmarks have found so far, in JSON: other seeds or contenders are added to it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path


def found_before(path: Path, key: str) -> defaultdict[str, defaultdict[str, dict]]:
    """{task: {contender: {seed: score}}} of the file's ``key``; empty if there is no file."""
    found: defaultdict[str, defaultdict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    if path.exists():
        for task, names in json.loads(path.read_text(encoding="utf-8"))[key].items():
            for name, seeds in names.items():
                found[task][name].update(seeds)
    return found
