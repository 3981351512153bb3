"""Batches of stored clips, read ahead by threads while a model works on those before.

They are what ``evl.data`` makes of the videos: the same clips in the same batches, the same videos missing from them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from evl.config import ClipConfig
from evl.data.dataset import Batch
from evl.features.store import StoredClips, StoredSplit, drawn_frames

READ_AHEAD = 2  # batches that wait or are being read; two threads overlap what one waits for the disk


class StoredTrainingClips:
    """``read([(epoch, index), …])`` -> Batch: what ``TrainingClips`` gives for these keys, as far as it is stored.

    Epoch e of a video takes its stored clip e modulo their number. Where longer runs of frames are stored, the
    ``clip.num_frames`` frames of an epoch are drawn from (seed, epoch, index).
    """

    def __init__(
        self,
        split: StoredSplit,
        labels: Sequence[int],
        clip: ClipConfig,
        stored_frames: int,
        seed: int,
        blocks: Sequence[int] | None = None,
    ):
        self.split, self.labels, self.clip, self.stored_frames, self.seed = split, labels, clip, stored_frames, seed
        self.blocks = blocks  # tapped blocks to read; None: all

    def read(self, keys: Sequence[tuple[int, int]], out: StoredClips | None = None) -> Batch:
        split = self.split
        good = [(epoch, index) for epoch, index in keys if index not in split.damaged]
        pairs = [(index, epoch % split.num_clips(index)) for epoch, index in good]
        frames = None
        if self.stored_frames != self.clip.num_frames:
            frames = [self._drawn(epoch, *pair) for (epoch, _), pair in zip(good, pairs, strict=True)]
        return Batch(
            split.read(pairs, self.blocks, frames, out) if pairs else None,
            torch.tensor([self.labels[index] for _, index in good], dtype=torch.long),
            tuple(index for _, index in good),
            {index: split.damaged[index] for _, index in keys if index in split.damaged},
        )

    def _drawn(self, epoch: int, video: int, clip: int) -> list[int]:
        num_valid = self.split.num_valid(video, clip)
        return drawn_frames(
            self.stored_frames, num_valid, self.clip.num_frames, self.clip.sampling,
            seed=self.seed, epoch=epoch, video=video,
        )  # fmt: skip

    def any_clip(self) -> StoredClips:
        """One clip, whichever: it stands in where a batch has none."""
        for index in range(len(self.split)):
            if index not in self.split.damaged:
                return self.read([(0, index)]).pixels
        raise AssertionError("a run stops before all of its videos are damaged")


class StoredViews:
    """``read([index, …])`` -> Batch of all stored views of these videos: what ``EvaluationViews`` gives.

    Of a training split, all stored training clips; of longer runs of frames, the ``num_frames`` in the middle of what
    lies inside the video (dense), or the middle one of each group (segment).
    """

    def __init__(
        self,
        split: StoredSplit,
        labels: Sequence[int] | None,
        blocks: Sequence[int] | None = None,
        clip: ClipConfig | None = None,
    ):
        self.split, self.labels, self.blocks, self.clip = split, labels, blocks, clip

    def read(self, indices: Sequence[int], out: StoredClips | None = None) -> Batch:
        split = self.split
        good = [index for index in indices if index not in split.damaged]
        pairs = [(index, clip) for index in good for clip in range(split.num_clips(index))]
        labels = [-1 if self.labels is None else self.labels[index] for index in good]
        frames = None
        if self.clip is not None and split.num_frames != self.clip.num_frames:
            frames = [self._middle(*pair) for pair in pairs]
        return Batch(
            split.read(pairs, self.blocks, frames, out) if pairs else None,
            torch.tensor(labels, dtype=torch.long),
            tuple(good),
            {index: split.damaged[index] for index in indices if index in split.damaged},
            tuple(split.num_clips(index) for index in good),
        )

    def _middle(self, video: int, clip: int) -> list[int]:
        stored, wanted = self.split.num_frames, self.clip.num_frames
        if self.clip.sampling == "segment":
            size = stored // wanted
            return [group * size + size // 2 for group in range(wanted)]
        start = max(0, min(stored, self.split.num_valid(video, clip)) - wanted) // 2
        return list(range(start, start + wanted))


def read_ahead(
    read: Callable[..., Batch], batches: Iterable[Sequence], device: torch.device, *, held: int = 0
) -> Iterator[Batch]:
    """``read(keys, out)`` of each batch, in order; the first ones are read from now on.

    The memory of a batch is used again for a later one: when the next batch is asked for, only the last ``held`` may
    still be in use. On CUDA batches come in pinned memory, and live as long as they are wanted. What reading raises
    is raised where its batch is asked for.
    """
    free: deque[StoredClips] = deque()

    def task(keys: Sequence) -> Batch:
        try:
            out = free.popleft()
        except IndexError:
            out = None
        batch = read(keys, out)
        if device.type != "cuda":
            return batch
        pinned = batch.pin_memory()
        if batch.pixels is not None:
            free.append(batch.pixels)
        return pinned

    keys = iter(batches)
    pool = ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="evl-store")
    waiting = deque(pool.submit(task, next_keys) for next_keys in islice(keys, READ_AHEAD))

    def in_order() -> Iterator[Batch]:
        given: deque[Batch] = deque()
        try:
            while waiting:
                if len(given) > held and (done := given.popleft().pixels) is not None and device.type != "cuda":
                    free.append(done)
                batch = waiting.popleft().result()
                if (next_keys := next(keys, None)) is not None:
                    waiting.append(pool.submit(task, next_keys))
                given.append(batch)
                yield batch
        finally:  # also where nobody asks for the rest
            pool.shutdown(wait=False, cancel_futures=True)

    return in_order()
