"""The windows of one long video → features. Each sampled frame is decoded once and passes the encoder once.

An image encoder sees each frame by itself, so windows that overlap share its features. Only the frames that the windows
of a batch need are kept, so memory does not depend on the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.models.windows import WindowFeatures
from evl.runtime.cpu import return_freed_memory
from evl.runtime.precision import autocast
from evl.streams.base import Batch, Features, Views
from evl.types import LayerFeatures, Preprocessing, Sample
from evl.video.decode.forward import Picture, read_forward
from evl.video.decode.index import FrameIndex
from evl.video.transforms import evaluation_views
from evl.video.windows import Windows

FRAMES_AT_ONCE = 32  # frames that are decoded before the encoder runs
TRIM_EVERY = 16  # batches; a trim takes milliseconds


def shares_frames(backbone: torch.nn.Module) -> bool:
    """Whether the encoder sees each frame by itself, so that windows can share its features."""
    own = type(backbone)
    methods = ("forward", "_features", "tap_clips", "tap_in_parts")
    is_usual = all(getattr(own, name, None) is getattr(FrozenBackbone, name) for name in methods)
    return is_usual and backbone.frames_per_map == 1


@dataclass(frozen=True)
class FrameEncoder:
    """``encode(pictures)`` -> parts (F,C,…), what is kept of F pictures in C crops: features, or else pixels.

    ``gather`` makes the features of windows from them. ``is_shared`` is False for encoders whose frames attend to each
    other: they see the pixels of each window anew. ``attention``: whether features have query and key besides tokens.
    """

    backbone: FrozenBackbone
    preprocessing: Preprocessing
    num_crops: int
    precision: str
    attention: bool = True

    @property
    def is_shared(self) -> bool:
        return shares_frames(self.backbone)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def views(self, picture: np.ndarray) -> Tensor:
        """A picture (H,W,3) uint8 -> its normalized crops (C,3,h,w)."""
        frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        return evaluation_views(frame, [[0]], self.num_crops, self.preprocessing)[:, 0]

    def encode(self, views: Sequence[Tensor]) -> list[Tensor]:
        pixels = torch.stack(list(views))  # (F,C,3,h,w)
        if not self.is_shared:
            return [pixels]
        features = self._run(pixels.flatten(0, 1)[:, None])  # clips of one frame
        if not self.attention:
            features = [LayerFeatures(one.tokens, *[one.query[..., :0, :]] * 2) for one in features]
        return [part[:, 0].unflatten(0, pixels.shape[:2]) for one in features for part in one]

    def gather(self, parts: Sequence[Tensor], numbers: np.ndarray, places: np.ndarray) -> Features:
        """Features of windows whose frames are at ``places`` (B,T) of the ``parts``; their crops follow each other.

        ``numbers`` (F): those of the frames in ``parts``. The features are WindowFeatures, with a number for each crop
        of a frame; or LayerFeatures (B·C,T,…) if the encoder sees each window anew.
        """
        if not self.is_shared:
            chosen = torch.from_numpy(places).to(parts[0].device)
            return self._run(parts[0][chosen].transpose(1, 2).flatten(0, 1))  # (B,T,C,…) -> (B·C,T,…)
        crops = np.arange(self.num_crops)
        numbers = (numbers[:, None] * self.num_crops + crops).ravel()
        places = (places[:, None] * self.num_crops + crops[:, None]).reshape(-1, places.shape[1])
        parts = [part.flatten(0, 1) for part in parts]
        return [WindowFeatures(*parts[place : place + 3], numbers, places) for place in range(0, len(parts), 3)]

    def _run(self, clips: Tensor) -> list[LayerFeatures]:
        with torch.no_grad(), autocast(self.precision, self.device):
            return self.backbone(clips.to(self.device))


class WindowSamples(Sequence):
    """A sample for each window: the part of the video from its first frame to its last."""

    def __init__(self, path: str, frames: np.ndarray, times_seconds: np.ndarray):
        self.path, self.frames, self.times_seconds = path, frames, times_seconds

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, place: int) -> Sample:
        start, end = self.times_seconds[self.frames[place, [0, -1]]].tolist()
        return Sample(self.path, None, start, end)


class WindowStream:
    """A stream whose samples are the windows of one video; keys are their numbers, which must rise from call to call.

    ``windows.frames`` are numbers in the whole file. ``num_encoded`` counts the frames that were encoded so far.
    Raises OtherFramesError (``evl.video.decode.forward``) while it reads, if ``index`` is not that of the file.
    """

    advice = "decoding runs in this process"
    waited_seconds = 0.0

    def __init__(self, encoder: FrameEncoder, path: str, index: FrameIndex, windows: Windows):
        self.frame_encoder, self.path, self.index, self.windows = encoder, path, index, windows
        self.encoder, self.device, self.precision = encoder.backbone, encoder.device, encoder.precision
        self.views = Views(1, encoder.num_crops, encoder.precision)
        times = index.times_seconds - index.times_seconds[0]
        self.samples = WindowSamples(path, windows.frames, times)
        self.num_encoded = 0
        self.most_kept = 0

    def notices(self) -> tuple[str, ...]:
        return ()

    def read(self, batches: Iterable[Sequence[int]]) -> Iterator[Batch]:
        batches = [np.asarray(batch, np.int64) for batch in batches]
        if not batches:
            return
        wanted = np.unique(np.concatenate([self.windows.frames[batch].ravel() for batch in batches]))
        square = self.frame_encoder.preprocessing.pixel_aspect
        pictures = read_forward(self.path, self.index, wanted.tolist(), square_pixels=square)
        kept = KeptFrames(self.frame_encoder)
        for place, batch in enumerate(batches):
            if place % TRIM_EVERY == TRIM_EVERY - 1:
                return_freed_memory()
            frames = self.windows.frames[batch]
            kept.drop_before(int(frames.min()))
            self.num_encoded += kept.read_to(int(frames.max()), pictures)
            self.most_kept = max(self.most_kept, len(kept.numbers))
            yield self._batch(batch, frames, kept)

    def _batch(self, batch: np.ndarray, frames: np.ndarray, kept: KeptFrames) -> Batch:
        damaged: dict[int, str] = {}
        for number, reason in kept.damaged.items():
            for index in batch[(frames == number).any(1)].tolist():
                damaged.setdefault(index, reason)
        good = ~np.isin(batch, list(damaged))
        indices = tuple(batch[good].tolist())
        features = kept.features(frames[good]) if indices else None
        counts = (self.frame_encoder.num_crops,) * len(indices)
        labels = torch.full((len(indices),), -1, device=self.device)
        return Batch(features, labels, indices, damaged, counts)


class KeptFrames:
    """The ring of encoded frames: new ones are added at its end, and old ones are dropped at its start.

    ``numbers``: those of the frames, rising. ``damaged``: number → reason, of frames that have no picture.
    """

    def __init__(self, encoder: FrameEncoder):
        self.encoder = encoder
        self.numbers = np.empty(0, np.int64)
        self.damaged: dict[int, str] = {}
        self.parts: list[Tensor] = []  # (F,C,…) each

    def drop_before(self, number: int) -> None:
        count = int(np.searchsorted(self.numbers, number))
        self.numbers = self.numbers[count:]
        self.parts = [part[count:] for part in self.parts]
        self.damaged = {place: reason for place, reason in self.damaged.items() if place >= number}

    def read_to(self, last: int, pictures: Iterator[tuple[int, Picture]]) -> int:
        """Reads and encodes frames until ``last`` is among them; returns how many were encoded."""
        seen = max([-1, *self.numbers[-1:].tolist(), *self.damaged])
        numbers: list[int] = []
        views: list[Tensor] = []
        count = 0
        while seen < last:
            seen, picture = next(pictures)
            if isinstance(picture, str):
                self.damaged[seen] = picture
            else:
                numbers.append(seen)
                views.append(self.encoder.views(picture))
            if numbers and (seen >= last or len(numbers) == FRAMES_AT_ONCE):
                count += len(numbers)
                self._add(numbers, views)
                numbers, views = [], []
        return count

    def _add(self, numbers: list[int], views: list[Tensor]) -> None:
        self.numbers = np.concatenate([self.numbers, numbers])
        new = self.encoder.encode(views)
        self.parts = [torch.cat(pair) for pair in zip(self.parts, new, strict=True)] if self.parts else new

    def features(self, frames: np.ndarray) -> Features:
        """The features of windows with these frames (B,T)."""
        return self.encoder.gather(self.parts, self.numbers, np.searchsorted(self.numbers, frames))


class GivenWindows:
    """A stream of windows whose frames are encoded already; its keys are their numbers.

    ``parts``: what is kept of the frames (``FrameEncoder``), and ``numbers`` (F) theirs. ``places`` (n,T): the
    frames of each window among them.
    """

    advice = "the frames are encoded already"
    waited_seconds = 0.0

    def __init__(self, encoder: FrameEncoder, parts: Sequence[Tensor], numbers: np.ndarray, places: np.ndarray):
        self.frame_encoder, self.parts, self.numbers, self.places = encoder, parts, numbers, places
        self.encoder, self.device, self.precision = encoder.backbone, encoder.device, encoder.precision
        self.views = Views(1, encoder.num_crops, encoder.precision)
        self.samples = (Sample("these frames"),) * len(places)

    def notices(self) -> tuple[str, ...]:
        return ()

    def read(self, batches: Iterable[Sequence[int]]) -> Iterator[Batch]:
        for batch in batches:
            features = self.frame_encoder.gather(self.parts, self.numbers, self.places[list(batch)])
            labels = torch.full((len(batch),), -1, device=self.device)
            yield Batch(features, labels, tuple(batch), {}, (self.frame_encoder.num_crops,) * len(batch))
