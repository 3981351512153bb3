"""A store of features, read: memory-mapped shards, of which only the rows, blocks and frames asked for are touched.

Nothing in a store is believed: what does not fit the description is a StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evl.errors import StoreError
from evl.runtime.files import expand_home
from evl.store.description import StoreDescription, clip_tensors, first_shards, items_a_shard
from evl.store.index import INDEX, SplitRows, read_index
from evl.store.packing import TYPES, Packed
from evl.store.shards import Shard, Shards, num_shards, read_description


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
        return self._each(lambda packed: packed[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StoredClips:
        return self._each(lambda packed: packed.to(device, non_blocking))

    def pin_memory(self) -> StoredClips:  # called by DataLoader
        return self._each(Packed.pin_memory)

    @property
    def num_bytes(self) -> int:
        return sum(packed.num_bytes for packed in (*self.tokens.values(), *self.maps.values()))

    def _each(self, change: Callable[[Packed], Packed]) -> StoredClips:
        tokens, maps = ({block: change(one) for block, one in part.items()} for part in (self.tokens, self.maps))
        return StoredClips(tokens, maps)


class FeatureStore:
    """``FeatureStore(folder)``: a finished store, to be read. May be pickled (a worker maps it again).

    Raises StoreError where there is none, it is not finished, of another version, or does not hold what it claims.
    ``unfinished=True`` opens what extraction has begun, for its description alone: ``splits`` is then an error.

    Attributes: ``path`` (Path), ``description``.
    """

    def __init__(self, path: str | Path, *, unfinished: bool = False):
        self.path = expand_home(Path(path))
        self.description = read_description(self.path)
        if not unfinished:
            self.splits  # noqa: B018  (what is wrong is told now)

    def __fspath__(self) -> str:
        return str(self.path)

    def __getstate__(self) -> dict:
        return {"path": self.path, "description": self.description}

    @property
    def is_complete(self) -> bool:
        return (self.path / INDEX).is_file() and num_shards(self.path) >= first_shards(self.description)[""]

    @cached_property
    def splits(self) -> dict[str, StoredSplit]:
        """train, val, and test where there is one: those with videos."""
        if not self.is_complete:
            there, count = num_shards(self.path), first_shards(self.description)[""]
            raise StoreError(
                f"{self.path}: not finished, {there} of {count} shards are there; the evl extract that began it "
                "goes on where it stopped"
            )
        rows = read_index(self.path / INDEX, self.description)
        shards = Shards(self.path, self.description)
        return {split: StoredSplit(split, found, self.description, shards) for split, found in rows.items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.description.class_names


class StoredSplit:
    """The videos of a split and their stored clips.

    Attributes: ``name``; ``samples`` of ALL videos, damaged ones too; ``labels``, the number of each one's class;
    ``damaged``: video -> reason.
    """

    def __init__(self, name: str, rows: SplitRows, description: StoreDescription, shards: Shards):
        self.name, self.samples, self.labels, self.damaged = name, rows.samples, rows.labels, rows.damaged
        self._rows, self._description, self._shards = rows, description, shards
        self._first_shard = first_shards(description)[name]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.samples)

    @property
    def num_frames(self) -> int:
        """Frames of a stored clip."""
        return self._description.num_frames(self.name)

    def num_clips(self, video: int) -> int:
        """Stored clips of a video, numbered from 0; 0 where it is damaged."""
        return int(self._rows.num_clips[video])

    def num_valid(self, video: int, clip: int) -> int:
        """Frames of a stored clip that lie inside the video: the others repeat."""
        return int(self._rows.num_valid[self._place(video, clip)])

    def read(
        self,
        pairs: Sequence[tuple[int, int]],
        blocks: Sequence[int] | None = None,
        frames: Sequence[Sequence[int]] | None = None,
        out: StoredClips | None = None,
    ) -> StoredClips:
        """The clips (video, clip) of ``pairs``, in that order, in memory of their own.

        ``blocks``: tapped blocks to read (in form ``tokens`` with those before them); None: all. ``frames``: for each
        pair, which of the stored frames, the same number of each (``drawn_frames``); None: all. With neighbor maps
        they must be consecutive, and the first and last get no neighbor. ``out``: clips of an earlier call that nobody
        reads any more, whose memory is used again where it fits: fresh memory takes longer than the reading. Safe to be
        called by several threads. Raises StoreError where a shard is missing, damaged, or not what the description
        says; KeyError for a pair or block that is not stored; ValueError for frames that cannot be taken.
        """
        it = self._description
        if not pairs:
            raise ValueError("no clips were asked for")
        if not set(taps := it.taps if blocks is None else tuple(blocks)) <= set(it.taps) or not taps:
            raise KeyError(f"blocks {list(taps)}; the store has {list(it.taps)}")
        count = it.num_frames(self.name)
        chosen = None if frames is None else _checked_frames(frames, len(pairs), count, it.options.form == "maps")
        tensors = clip_tensors(it.spec, taps, it.options, count if chosen is None else chosen.shape[1])
        places = [self._place(video, clip) for video, clip in pairs]
        found = [self._open(place, *pair) for place, pair in zip(places, pairs, strict=True)]
        for shard, row in found:
            shard.prefetch([shard.tensors[name][row] for name in tensors])
        memory = _memory(tensors, len(pairs), out)
        for place, (shard, row) in enumerate(found):
            for name, target in memory.items():
                source = shard.tensors[name][row]
                if chosen is not None and source.shape[0] > 1:  # one channel scale serves all frames
                    source = _taken(source, chosen[place])
                target[place] = source
        if chosen is not None and it.options.form == "maps":
            _cut_ends(memory, chosen, count)
        return _as_clips(memory)

    def _place(self, video: int, clip: int) -> int:
        """Where a clip stands among the split's."""
        if not 0 <= video < len(self) or not 0 <= clip < self._rows.num_clips[video]:
            raise KeyError(f"clip {clip} of video {video} of {self.name} is not stored")
        return int(self._rows.first[video]) + clip

    def _open(self, place: int, video: int, clip: int) -> tuple[Shard, int]:
        item = video * self._description.clips_a_video(self.name) + clip
        number = self._first_shard + item // items_a_shard(self._description, self.name)
        shard = self._shards.get(number)
        row = int(self._rows.row[place])
        if row >= shard.num_rows or shard.pairs[row] != (video, clip):
            raise StoreError(
                f"{shard.path}: has another clip where the index says clip {clip} of video {video}; delete {INDEX}, "
                "and evl extract makes it again"
            )
        return shard, row


def _memory(tensors: Mapping[str, tuple[str, tuple[int, ...]]], n: int, out: StoredClips | None) -> dict[str, Tensor]:
    """A tensor for each of ``tensors``, with n clips: of ``out`` if it fits."""
    old = {} if out is None else _as_tensors(out)
    memory = {}
    for name, (dtype, shape) in tensors.items():
        room = old.get(name)
        fits = room is not None and room.dtype == TYPES[dtype] and room.shape[1:] == shape and len(room) >= n
        memory[name] = room[:n] if fits else torch.empty((n, *shape), dtype=TYPES[dtype])
    return memory


def _as_tensors(clips: StoredClips) -> dict[str, Tensor]:
    tensors = {}
    for kind, part in (("tokens", clips.tokens), ("maps", clips.maps)):
        for block, packed in part.items():
            tensors |= {f"{kind}.{block}": packed.values, f"{kind}.{block}.scale": packed.scale}
    return tensors


def _as_clips(tensors: Mapping[str, Tensor]) -> StoredClips:
    clips = StoredClips({}, {})
    for name, values in tensors.items():
        kind, block, *rest = name.split(".")
        if not rest:
            getattr(clips, kind)[int(block)] = Packed(values, tensors.get(f"{name}.scale"))
    return clips


def _checked_frames(frames: Sequence[Sequence[int]], n: int, count: int, is_run: bool) -> np.ndarray:
    try:
        chosen = np.asarray(frames, dtype=np.int64)
    except (ValueError, OverflowError):
        chosen = np.zeros(0)
    if chosen.ndim != 2 or len(chosen) != n or not chosen.size or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"frames must be as many for each of the {n} clips, numbered from 0 to {count - 1}")
    if is_run and (np.diff(chosen, axis=1) != 1).any():
        raise ValueError("with neighbor maps, frames must be consecutive")
    return chosen


def _taken(source: Tensor, frames: np.ndarray) -> Tensor:
    if (np.diff(frames) == 1).all():
        return source[int(frames[0]) : int(frames[-1]) + 1]
    return source[torch.from_numpy(frames)]


def _cut_ends(memory: Mapping[str, Tensor], frames: np.ndarray, count: int) -> None:
    """The first and last frames that were taken look at no neighbor any more."""
    for name, values in memory.items():
        if name.startswith("maps.") and not name.endswith(".scale"):
            values[:, 0, :, :, :, 0] = 0
            values[:, -1, :, :, :, 1] = 0


def drawn_frames(
    num_stored: int, num_valid: int, num_frames: int, sampling: str, *, seed: int, epoch: int, video: int
) -> list[int]:
    """Which of ``num_stored`` frames a training clip of ``num_frames`` takes in an epoch, rising.

    dense: consecutive ones, start drawn among those where all lie inside the video, if there are any, else 0.
    segment: one of each of ``num_frames`` equal groups.
    """
    if num_frames > num_stored or (sampling == "segment" and num_stored % num_frames):
        raise ValueError(f"clips of {num_frames} frames cannot be drawn of {num_stored}")
    generator = np.random.default_rng([seed, epoch, video])
    if sampling == "segment":
        size = num_stored // num_frames
        return [int(group * size + i) for group, i in enumerate(generator.integers(size, size=num_frames))]
    start = int(generator.integers(max(0, min(num_valid, num_stored) - num_frames) + 1))
    return list(range(start, start + num_frames))
