"""A store of features, read: memory-mapped shards, of which only the rows, blocks and frames asked for are touched.

Nothing in a store is believed: what does not fit the description is a StoreError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evl.features.description import StoreDescription
from evl.features.packing import Packed
from evl.types import Sample


@dataclass(frozen=True)
class StoredClips:
    """What is stored of n clips, in the place of a batch of pixels: block number -> Packed, first dimension n.

    ``tokens`` (n,T,L,D) of every block that was read; ``maps`` (n,T,h,w,h,2,w) of tapped blocks in form ``maps``,
    else empty.
    """

    tokens: Mapping[int, Packed]
    maps: Mapping[int, Packed]

    def __len__(self) -> int:
        """n: the number of clips."""
        return len(next(iter(self.tokens.values())))

    def __getitem__(self, rows) -> StoredClips:
        """The clips ``rows`` (a slice, or a tensor of indices)."""
        raise NotImplementedError

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StoredClips:
        raise NotImplementedError

    def pin_memory(self) -> StoredClips:  # called by DataLoader
        raise NotImplementedError

    @property
    def num_bytes(self) -> int:
        raise NotImplementedError


class FeatureStore:
    """``FeatureStore(folder)``: a finished store, to be read. May be pickled (a worker maps it again).

    Raises StoreError where there is none, it is not finished, of a newer evl, or does not hold what it claims.
    ``unfinished=True`` opens what extraction has begun, for its description alone: ``splits`` is then an error.

    Attributes: ``path`` (Path), ``description``.
    """

    def __init__(self, path: str | Path, *, unfinished: bool = False):
        self.path = Path(path)
        self.description: StoreDescription
        raise NotImplementedError

    @property
    def is_complete(self) -> bool:
        raise NotImplementedError

    @property
    def splits(self) -> dict[str, StoredSplit]:
        """train, val, and test where there is one: those with videos."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.description.class_names


class StoredSplit:
    """The videos of a split and their stored clips.

    Attributes: ``name``; ``samples`` of ALL videos, damaged ones too; ``labels``, the number of each one's class;
    ``damaged``: video -> reason.
    """

    name: str
    samples: tuple[Sample, ...]
    labels: tuple[int, ...]
    damaged: dict[int, str]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.samples)

    def num_clips(self, video: int) -> int:
        """Stored clips of a video, numbered from 0; 0 where it is damaged."""
        raise NotImplementedError

    def num_valid(self, video: int, clip: int) -> int:
        """Frames of a stored clip that lie inside the video: the others repeat."""
        raise NotImplementedError

    def read(
        self,
        pairs: Sequence[tuple[int, int]],
        blocks: Sequence[int] | None = None,
        frames: Sequence[Sequence[int]] | None = None,
    ) -> StoredClips:
        """The clips (video, clip) of ``pairs``, in that order, in memory of their own.

        ``blocks``: tapped blocks to read (in form ``tokens`` with those before them); None: all. ``frames``: for each
        pair, which of the stored frames, the same number of each (``drawn_frames``); None: all. With neighbour maps
        they must be consecutive, and the first and last get no neighbour. Safe to be called by several threads.
        Raises StoreError where a shard is missing, damaged, or not what the description says; KeyError for a pair or
        block that is not stored.
        """
        raise NotImplementedError


def drawn_frames(
    num_stored: int, num_valid: int, num_frames: int, sampling: str, *, seed: int, epoch: int, video: int
) -> list[int]:
    """Which of ``num_stored`` frames a training clip of ``num_frames`` takes in an epoch, rising.

    dense: consecutive ones, start drawn among those where all lie inside the video, if there are any, else 0.
    segment: one of each of ``num_frames`` equal groups.
    """
    raise NotImplementedError
