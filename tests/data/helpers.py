"""Made folders of videos without pixels, and what a manifest found in them."""

import json
import os
from pathlib import Path

KINETICS = "label,youtube_id,time_start,time_end,split\n"


def make(root, *files):
    for name in files:
        write(root, name, "")


def write(root, name, content):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def segments(manifest, root):
    """split → [(path below root, label, start, end)]"""
    return {
        split: [(one.path.removeprefix(f"{root}/"), one.label, one.start_seconds, one.end_seconds) for one in samples]
        for split, samples in manifest.splits.items()
    }


def found(manifest, root):
    """split → [(path below root, label)] of the videos that are there."""
    return {
        split: [(os.path.relpath(s.path, root), s.label) for s in group if s not in manifest.missing]
        for split, group in manifest.splits.items()
    }


def names(samples):
    return [Path(sample.path).name for sample in samples]
