"""Turns manifests, folders and published lists into samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evl.errors import DataError
from evl.types import Sample


@dataclass(frozen=True)
class Manifest:
    """The samples of a list, by split; a list without splits has the one split ``all``.

    ``ignored``: files that are not videos. ``layout``: how the list was read, one of ``evl.data.layouts.NAMES``,
    ``folder`` or ``manifest``. ``missing``: the samples of all splits whose file does not exist; ``splits`` contain
    them too. ``num_unlabeled``: the number of rows without a label, which are left out. ``notices``: lines about what
    is surprising in the list (``evl.data.notices`` has more).
    """

    source: str
    splits: dict[str, tuple[Sample, ...]]
    class_names: tuple[str, ...] = ()  # none yet: the labels, sorted
    ignored: tuple[str, ...] = field(default=())
    layout: str = "manifest"
    missing: tuple[Sample, ...] = field(default=())
    num_unlabeled: int = 0
    notices: tuple[str, ...] = field(default=())

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(sample for samples in self.splits.values() for sample in samples)

    def require_videos(self) -> None:
        """Raises DataError if all videos are missing."""
        if self.missing and len(self.missing) == len(self.samples):
            refuse_missing(self.source, self.missing)


def refuse_missing(source: str | Path, missing: Sequence[Sample]) -> None:
    """Raises the DataError for a list whose videos are all missing."""
    raise DataError(
        f"{source}: all {len(missing)} videos are missing, such as {missing[0].path}; "
        "give `root`, the folder that contains the videos"
    )
