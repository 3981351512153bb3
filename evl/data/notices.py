"""What is odd about a collection, although it can be used: a line each, with a file, class or row, and what to do.

``evl check`` prints them, and whatever reads a collection for training logs them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evl.data.labels import near_twins
from evl.data.listing import is_video_name
from evl.types import Sample

if TYPE_CHECKING:
    from evl.data.manifest import Manifest


def manifest_notices(manifest: Manifest) -> tuple[str, ...]:
    """All that can be said without opening a video."""
    return (*manifest.notices, *twin_classes(manifest.class_names), *mixed_kinds(manifest.samples))


def twin_classes(class_names: Sequence[str]) -> tuple[str, ...]:
    """A line on each group of classes whose names differ in case, blanks, underscores or hyphens only."""
    return tuple(
        f"the classes {' and '.join(map(repr, group))} differ in case, blanks, underscores or hyphens only; if they "
        "are one class, write it in one way"
        for group in near_twins(class_names)
    )


def mixed_kinds(samples: Sequence[Sample]) -> tuple[str, ...]:
    """A line if a class has video files and folders of frames: these have no rate of their own, and other pictures."""
    files: dict[str, int] = defaultdict(int)
    others: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if is_video_name(sample.path):
            files[sample.label] += 1
        else:
            others[sample.label].append(sample.path)
    mixed = [label for label, paths in others.items() if files[label] and os.path.isdir(paths[0])]
    if not mixed:
        return ()
    label = min(mixed)
    number = len(others[label])
    folders = f"{number} {'folder' if number == 1 else 'folders'} of frames, such as {others[label][0]}"
    more = f" (and {len(mixed) - 1} more such classes)" if len(mixed) > 1 else ""
    return (
        f"the class {label!r} has {files[label]} video {'file' if files[label] == 1 else 'files'} and {folders}{more}; "
        "frames count as 25 per second. Folders of thumbnails and the like belong elsewhere",
    )
