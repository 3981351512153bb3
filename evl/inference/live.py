"""Frames that come one by one, from a camera or any other source without an end → scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evl.data.dataset import spacing_of
from evl.errors import ConfigError
from evl.inference.reading import Reader, card_of, evaluating, read, scores_of
from evl.inference.timeline import encoder_for
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.streams.windows import FrameEncoder, GivenWindows
from evl.types import LayerFeatures
from evl.video.live_windows import LiveWindow, LiveWindows
from evl.video.windows import WindowPlan


class LiveScores(NamedTuple):
    """``scores`` (Y) of a window. ``time_seconds``: its middle, by the clock of the source."""

    time_seconds: float
    scores: np.ndarray


class Live:
    """Scores of frames that are pushed one by one; each sampled frame passes the encoder once.

        live = evl.Live(model)
        for frame, time_seconds in camera:                     # (H,W,3) uint8, RGB
            scores = live.push(frame, time_seconds)            # (Y), or None
            if scores is not None: print(live.time_seconds, model.class_names[scores.argmax()])

    The windows are those of ``evl.timeline`` for a file with these frames. Memory does not grow.

    Args:
        model: a model that was loaded or trained.
        every_seconds, every_frames: the step from window to window; None: one at each sampled frame. Models that sample
            by time take seconds, and models with a stride take frames.
        frames_per_second: for a model with a stride: the rate of the videos that the stride is meant for. Frames are
            then picked by time, stride / frames_per_second seconds apart, whatever the rate of the source. None: every
            stride-th frame that is pushed.
        window_seconds: for models that take one frame from each segment: the length of a window.
        num_crops: crops of each frame, whose scores are averaged; None: the model's own.
        memory: for a causal side network: no windows, but a state that reads each sampled frame once. After so many
            frames, the weight of a frame in the scores has fallen to about a third. Every sampled frame gives scores.

    ``push`` survives a clock that stands still, goes back or jumps ahead: see ``evl.video.live_windows.LiveClock``.
    ``time_seconds`` is the middle of the newest window. ``num_encoded`` counts the frames that were encoded.
    Raises ConfigError for arguments that do not go together.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        every_seconds: float | None = None,
        every_frames: int | None = None,
        frames_per_second: float | None = None,
        window_seconds: float | None = None,
        num_crops: int | None = None,
        memory: float | None = None,
    ):
        spacing = spacing_of(card_of(model).config.clip)
        if frames_per_second is not None:
            if spacing.sampling != "dense" or spacing.frames_per_second is not None:
                raise ConfigError("`frames_per_second` goes with models that have a stride; this one samples by time")
            if not 0 < frames_per_second < 1e6:
                raise ConfigError(f"`frames_per_second={frames_per_second:g}`: expected a rate above 0")
            spacing = replace(spacing, frames_per_second=frames_per_second / spacing.stride)
            if every_frames is not None:
                every_seconds, every_frames = every_frames / frames_per_second, None
        plan = WindowPlan(spacing, every_seconds, every_frames, window_seconds)
        self.model, self.time_seconds = model, None
        self._encoder = encoder_for(model, num_crops)
        self._reader, self._plan = scores_of(model), plan
        if memory is not None:
            if every_seconds is not None or every_frames is not None:
                raise ConfigError("with memory, every sampled frame gives scores: leave out the step between windows")
            self._reader, self._plan = _streaming_reader(model, self._encoder, memory), plan.of_single_frames()
        self._windows = LiveWindows(self._plan)
        self.num_encoded = 0

    def push(self, frame: np.ndarray | Tensor, time_seconds: float) -> np.ndarray | None:
        """Takes the next frame; returns the scores (Y) of the window that it completes, else None.

        ``frame``: (H,W,3) uint8 in RGB, an array or a tensor. ``time_seconds``: when it was shown, by any clock. If a
        frame completes several windows, as after a pause, these are the scores of the newest; ``push_all`` has all.
        Raises ConfigError for a frame of another shape or type.
        """
        found = self.push_all(frame, time_seconds)
        return found[-1].scores if found else None

    def push_all(self, frame: np.ndarray | Tensor, time_seconds: float) -> list[LiveScores]:
        """As ``push``, with the times and scores of all windows that the frame completes, oldest first."""
        picture = checked_frame(frame).copy()  # a camera may write the next frame into the same memory
        return self._scores(self._windows.push(time_seconds, _Frame(picture)))

    def finish(self) -> list[LiveScores]:
        """The scores of the last window of a source that has ended, in which the last frame repeats, as in a file.

        There are none if the last complete window reached the end.
        """
        return self._scores(self._windows.finish())

    def _scores(self, windows: Sequence[LiveWindow]) -> list[LiveScores]:
        """The scores of complete windows. It encodes the frames that have been chosen since the last call."""
        chosen = [frame for window in (*windows, *self._windows.open) for frame in window.frames]
        with torch.no_grad():
            for frame in {id(frame): frame for frame in chosen if frame.parts is None}.values():
                frame.parts = self._encoder.encode([self._encoder.views(frame.picture)])
                frame.picture = None
                self.num_encoded += 1
        found = []
        for window in windows:
            parts = [torch.cat(same) for same in zip(*(frame.parts for frame in window.frames), strict=True)]
            stream = GivenWindows(self._encoder, parts, np.arange(len(window.frames))[None])
            with evaluating([self.model]):
                ((scores,), _) = read(stream, [self._reader], batch_size=1, world=World(0, 1, stream.device))
            found.append(LiveScores(window.time_seconds, scores[0]))
            self.time_seconds = window.time_seconds
        return found


class _Frame:
    """A pushed frame: its picture until it is encoded, then its ``parts`` (``FrameEncoder``)."""

    def __init__(self, picture: np.ndarray):
        self.picture: np.ndarray | None = picture
        self.parts: list[Tensor] | None = None


def checked_frame(frame: np.ndarray | Tensor) -> np.ndarray:
    """The frame as an array (H,W,3) uint8. Raises ConfigError for others."""
    if isinstance(frame, Tensor):
        frame = frame.detach().cpu().numpy()
    if not isinstance(frame, np.ndarray):
        raise ConfigError(f"a frame of type {type(frame).__name__}: expected an array or tensor (H,W,3) of uint8, RGB")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ConfigError(f"a frame of shape {frame.shape} and type {frame.dtype}: expected (H,W,3) of uint8, RGB")
    return frame


def _streaming_reader(model: Classifier, encoder: FrameEncoder, memory: float) -> Reader:
    """A reader of single frames that keeps the state of a causal side network."""
    decoder = model.decoder
    if not getattr(decoder, "causal", False) or not hasattr(decoder, "step") or model.zero_shot is not None:
        raise ConfigError(
            "memory goes with a causal side network (`model.decoder=side model.causal=true`, without "
            "zero_shot_start); leave it out for scores of windows"
        )
    if not encoder.is_shared:
        raise ConfigError("memory needs an encoder that sees each frame by itself; leave it out")
    with evaluating([model]):
        state = decoder.start_state(encoder.num_crops, memory=memory)

    def step(features: Sequence[LayerFeatures]) -> Tensor:
        nonlocal state
        vectors, state = decoder.step(state, features)
        return model.head(vectors).double().softmax(-1)

    return Reader(step, model.encoder.taps)
