"""Reads a store of features.

Its shards are mapped into memory, and only the requested rows, blocks and frames are read. Every file is checked: what
does not fit the description raises StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evl.errors import StoreError
from evl.runtime.files import expand_home
from evl.store.agreement import refuse_contradiction
from evl.store.description import StoreDescription, clip_tensors, first_shards, items_per_shard, shard_range
from evl.store.index import INDEX, SplitRows, read_index
from evl.store.packing import TYPES, Packed
from evl.store.shards import Shard, Shards, num_shards, read_description, shard_path


@dataclass(frozen=True)
class StoredClips:
    """The packed features of n clips: block number -> Packed, whose first dimension is n.

    ``tokens`` (n,T,L,D) of every block that was read; ``maps`` (n,T,h,w,h,2,w) of the tapped blocks in form ``maps``,
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
        parts = self.tokens, self.maps
        return StoredClips(*({block: change(packed) for block, packed in part.items()} for part in parts))


class FeatureStore:
    """``FeatureStore(folder)`` opens a finished store. It can be pickled, and another process opens it again.

    Raises StoreError if there is no store, if it is not finished, of another version, or contradicts its description.
    ``unfinished=True`` also opens an unfinished store, of which only the description can be used: ``splits`` then
    raises.

    Attributes: ``path`` (Path), ``description``.
    """

    def __init__(self, path: str | Path, *, unfinished: bool = False):
        self.path = expand_home(Path(path))
        self.description = read_description(self.path)
        if not unfinished:
            self.splits  # noqa: B018  (raises now if the store is wrong)

    def __fspath__(self) -> str:
        return str(self.path)

    def __getstate__(self) -> dict:
        return {"path": self.path, "description": self.description}

    @property
    def is_complete(self) -> bool:
        return (self.path / INDEX).is_file() and num_shards(self.path) >= first_shards(self.description)[""]

    @cached_property
    def splits(self) -> dict[str, StoredSplit]:
        """The splits that have videos, by name: train, val, test."""
        if not self.is_complete:
            there, count = num_shards(self.path), first_shards(self.description)[""]
            raise StoreError(
                f"{self.path}: not finished, {there} of {count} shards are there; run the same evl extract again, "
                "which goes on where it stopped"
            )
        rows = read_index(self.path / INDEX, self.description)
        shards = Shards(self.path, self.description)
        return {split: StoredSplit(split, own, self.description, shards) for split, own in rows.items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.description.class_names


class StoredSplit:
    """The videos of a split and their stored clips.

    Attributes:
        name: of the split.
        samples: ALL videos, damaged ones included.
        labels: the number of each video's class.
        damaged: video -> reason.
    """

    def __init__(self, name: str, rows: SplitRows, description: StoreDescription, shards: Shards):
        self.name, self.samples, self.labels, self.damaged = name, rows.samples, rows.labels, rows.damaged
        self._rows, self._description, self._shards = rows, description, shards
        self._first_shard = first_shards(description)[name]
        self._compared: set[int] = set()  # shards that the index agrees with
        for number in self._only_damaged():  # no clip of these is ever read
            self._shard(number)

    def _only_damaged(self) -> list[int]:
        """The numbers of the shards of which every clip is of a damaged video, by the index."""
        clips, step = self._description.clips_per_video(self.name), items_per_shard(self._description, self.name)
        good = np.flatnonzero(self._rows.num_clips)
        changes = np.zeros(-(-len(self) * clips // step) + 1, np.int64)
        np.add.at(changes, good * clips // step, 1)
        np.add.at(changes, ((good + 1) * clips - 1) // step + 1, -1)
        return [self._first_shard + int(place) for place in np.flatnonzero(changes[:-1].cumsum() == 0)]

    def _shard(self, number: int) -> Shard:
        """A shard, with which the index agrees. Raises StoreError."""
        shard = self._shards.get(number)
        if number not in self._compared:
            refuse_contradiction(shard, shard_range(self._description, number), self._rows, self._shards)
            self._compared.add(number)
        return shard

    def problems(self) -> Iterator[tuple[Path, str | None]]:
        """Reads every number of every shard of the split, and yields (shard, what is wrong with it or None)."""
        numbers = self._first_shard + np.arange(-(-len(self) * self._description.clips_per_video(self.name)
                                                  // items_per_shard(self._description, self.name)))  # fmt: skip
        for number in map(int, numbers):
            try:
                shard = self._shard(number)
                for row in range(shard.num_rows):
                    shard.verify(row, shard.tensors)
                yield shard.path, None
            except StoreError as error:
                yield shard_path(self._shards.folder, number), str(error)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.samples)

    @property
    def num_frames(self) -> int:
        """Frames per stored clip."""
        return self._description.num_frames(self.name)

    def num_clips(self, video: int) -> int:
        """The number of stored clips of a video; 0 if it is damaged."""
        return int(self._rows.num_clips[video])

    def num_valid(self, video: int, clip: int) -> int:
        """How many frames of a stored clip lie inside the video. The others are repeated frames."""
        return int(self._rows.num_valid[self._place(video, clip)])

    def read(
        self,
        pairs: Sequence[tuple[int, int]],
        blocks: Sequence[int] | None = None,
        frames: Sequence[Sequence[int]] | None = None,
        out: StoredClips | None = None,
        *,
        needs_maps: bool = True,
        verify: bool = True,
    ) -> StoredClips:
        """Reads the clips (video, clip) of ``pairs``, in that order, into memory of their own. Thread-safe.

        Args:
            pairs: the clips.
            blocks: the blocks to read; None: all tapped ones.
            frames: for each clip the numbers of the frames to take, equally many (``drawn_frames``); None: all. With
                neighbor maps they must be consecutive, and the first and last frame then have no neighbor outside.
            out: clips of an earlier call that are not needed any more. Their memory is used again if it fits, because
                new memory takes longer than reading.
            needs_maps: also read what the neighbor maps of the tapped blocks are made of: in form ``tokens`` the blocks
                before them.
            verify: whether the checksums of clips are compared when they are first read.

        Raises StoreError if a shard is missing, damaged or does not fit the description, KeyError if a clip or block is
        not stored, ValueError if the frames cannot be taken.
        """
        description = self._description
        if not pairs:
            raise ValueError("no clips were asked for")
        blocks = description.taps if blocks is None else tuple(blocks)
        if not blocks or not set(blocks) <= set(description.blocks):
            raise KeyError(f"blocks {list(blocks)}; the store has {list(description.blocks)}")
        mapped = set(blocks) & set(description.mapped) if needs_maps else set()
        has_maps = description.options.form == "maps" and bool(mapped)
        wanted = {f"tokens.{block}" for block in {*blocks, *(() if has_maps else (block - 1 for block in mapped))}}
        wanted |= {f"maps.{block}" for block in mapped} if has_maps else set()
        count = description.num_frames(self.name)
        chosen = None if frames is None else _checked_frames(frames, len(pairs), count, has_maps)
        num_frames = count if chosen is None else chosen.shape[1]
        tensors = clip_tensors(description.spec, description.taps, description.options, num_frames)
        tensors = {name: one for name, one in tensors.items() if name.removesuffix(".scale") in wanted}
        rows = [self._open(self._place(*pair), *pair) for pair in pairs]
        for shard, row in rows:
            shard.prefetch([shard.tensors[name][row] for name in tensors])
        for shard, row in rows if verify else ():
            shard.verify(row, tensors)
        memory = _memory(tensors, len(pairs), out)
        for place, (shard, row) in enumerate(rows):
            for name, target in memory.items():
                source = shard.tensors[name][row]
                if chosen is not None and source.shape[0] > 1:  # a scale per channel is the same for all frames
                    source = _taken(source, chosen[place])
                target[place] = source
        if chosen is not None and has_maps:
            _clear_ends(memory)
        return _as_clips(memory)

    def _place(self, video: int, clip: int) -> int:
        """The place of a clip among the split's rows. Raises KeyError if it is not stored."""
        if not 0 <= video < len(self) or not 0 <= clip < self._rows.num_clips[video]:
            raise KeyError(f"clip {clip} of video {video} of {self.name} is not stored")
        return int(self._rows.first[video]) + clip

    def _open(self, place: int, video: int, clip: int) -> tuple[Shard, int]:
        item = video * self._description.clips_per_video(self.name) + clip
        number = self._first_shard + item // items_per_shard(self._description, self.name)
        shard = self._shard(number)
        row = int(self._rows.row[place])
        if row >= shard.num_rows or shard.pairs[row] != (video, clip):
            raise StoreError(
                f"{shard.path}: row {row} is another clip than {INDEX} lists (clip {clip} of video {video}); delete "
                f"{INDEX}, and evl extract makes it again"
            )
        return shard, row


def _memory(tensors: Mapping[str, tuple[str, tuple[int, ...]]], n: int, out: StoredClips | None) -> dict[str, Tensor]:
    """A tensor with n clips for each of ``tensors``. The memory of ``out`` is used if it fits."""
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


def _checked_frames(frames: Sequence[Sequence[int]], n: int, count: int, has_maps: bool) -> np.ndarray:
    """``frames`` as an array (n, number of frames). Raises ValueError if they cannot be taken of ``count`` frames."""
    try:
        chosen = np.asarray(frames, dtype=np.int64)
    except (ValueError, OverflowError):
        chosen = np.zeros(0)
    if chosen.ndim != 2 or len(chosen) != n or not chosen.size or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"frames must be equally many for each of the {n} clips, with numbers from 0 to {count - 1}")
    if has_maps and (np.diff(chosen, axis=1) != 1).any():
        raise ValueError("with neighbor maps, frames must be consecutive")
    return chosen


def _taken(source: Tensor, frames: np.ndarray) -> Tensor:
    if (np.diff(frames) == 1).all():
        return source[int(frames[0]) : int(frames[-1]) + 1]
    return source[torch.from_numpy(frames)]


def _clear_ends(memory: Mapping[str, Tensor]) -> None:
    """Clears the neighbor maps of the first frame to the one before it, and of the last to the one after it."""
    for name, values in memory.items():
        if name.startswith("maps.") and not name.endswith(".scale"):
            values[:, 0, :, :, :, 0] = 0
            values[:, -1, :, :, :, 1] = 0


def drawn_frames(
    num_stored: int, num_valid: int, num_frames: int, sampling: str, *, seed: int, epoch: int, video: int
) -> list[int]:
    """The stored frames that a training clip of ``num_frames`` takes in an epoch, in ascending order.

    dense: consecutive frames. Their start is drawn so that all of them lie inside the video; if it is too short, the
    start is 0. segment: one drawn frame from each of ``num_frames`` equal groups of the ``num_stored`` frames.
    """
    if num_frames > num_stored or (sampling == "segment" and num_stored % num_frames):
        raise ValueError(f"clips of {num_frames} frames cannot be drawn of {num_stored}")
    generator = np.random.default_rng([seed, epoch, video])
    if sampling == "segment":
        size = num_stored // num_frames
        return [int(group * size + i) for group, i in enumerate(generator.integers(size, size=num_frames))]
    start = int(generator.integers(max(0, min(num_valid, num_stored) - num_frames) + 1))
    return list(range(start, start + num_frames))
