"""What benchmarks have found so far, in JSON: other seeds or contenders are added to it."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date
from pathlib import Path

import torch

from evl._version import __version__
from evl.bench.measure import describe_machine


def found_before(path: Path, key: str) -> defaultdict[str, defaultdict[str, dict]]:
    """{task: {contender: {seed: score}}} of the file's ``key``; empty if there is no file."""
    found: defaultdict[str, defaultdict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    if path.exists():
        for task, names in json.loads(path.read_text(encoding="utf-8"))[key].items():
            for name, seeds in names.items():
                found[task][name].update(seeds)
    return found


def write_found(path: Path, **content) -> None:
    """Writes results, with the date, the version and the machine in front."""
    about = {"date": str(date.today()), "evl": __version__, **describe_machine(torch.device("cpu"))}
    path.write_text(json.dumps(about | content, indent=1) + "\n", encoding="utf-8")
