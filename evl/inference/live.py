"""Frames that come one by one, from a camera or any other source without an end → scores."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evl.data.dataset import spacing_of
from evl.errors import ConfigError
from evl.inference.reading import Reader, card_of, evaluating, read
from evl.inference.timeline import encoder_for, window_scores_of
from evl.models import Classifier
from evl.models.windows import WindowFeatures
from evl.runtime.distributed import World
from evl.streams.windows import FRAMES_AT_ONCE, FrameEncoder, GivenWindows
from evl.video.live_windows import LiveWindow, LiveWindows
from evl.video.sampling import MICROSECONDS
from evl.video.windows import WindowPlan

WINDOWS_AT_ONCE = 16  # windows that are read together, for memory
_numbers = itertools.count()


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
        self._reader, self._plan = window_scores_of(model, WINDOWS_AT_ONCE), plan
        if memory is not None:
            if every_seconds is not None or every_frames is not None:
                raise ConfigError("with memory, every sampled frame gives scores: leave out the step between windows")
            self._reader, self._plan = _streaming_reader(model, self._encoder, memory), plan.of_single_frames()
        self._windows = LiveWindows(self._plan)
        self.keeps_state, self.num_encoded = memory is not None, 0

    def push(self, frame: np.ndarray | Tensor, time_seconds: float) -> np.ndarray | None:
        """Takes the next frame; returns the scores (Y) of the window that it completes, else None.

        ``frame``: (H,W,3) uint8 in RGB, upright, of square pixels; an array or a tensor. ``time_seconds``: when it was
        shown, by any clock. If a frame completes several windows, as after a pause, these are the scores of the newest;
        ``push_all`` has all. Raises ConfigError for a frame of another shape or type.
        """
        found = self.push_all(frame, time_seconds)
        return found[-1].scores if found else None

    def push_all(self, frame: np.ndarray | Tensor, time_seconds: float) -> list[LiveScores]:
        """As ``push``, with the times and scores of all windows that the frame completes, oldest first."""
        picture = checked_frame(frame).copy()  # a camera may write the next frame into the same memory
        return self._scores(self.choose(lambda: picture, time_seconds))

    def finish(self) -> list[LiveScores]:
        """The scores of the last window of a source that has ended, in which the last frame repeats, as in a file.

        There are none if the last complete window reached the end.
        """
        return self._scores(self.last_windows())

    def choose(self, picture: Callable[[], np.ndarray], time_seconds: float, left_out: int = 0) -> list[LiveWindow]:
        """The first half of ``push``: returns the windows that the next frame completes, for ``score_windows``.

        ``picture()`` is only called if the frame is part of a window. ``left_out``: see ``LiveWindows.push``.
        """
        return self._windows.push(time_seconds, _Frame(picture), left_out)

    def last_windows(self) -> list[LiveWindow]:
        """The first half of ``finish``."""
        return self._windows.finish()

    @property
    def elapsed_seconds(self) -> float:
        """The time of the newest frame from the first one, by a clock that never falls or jumps; 0 before there is
        one."""
        return max(0, self._windows.clock.now) / MICROSECONDS

    @property
    def frame_seconds(self) -> float:
        """How long a frame usually is; 0 if it is not known yet."""
        return self._windows.clock.distance / MICROSECONDS

    def _scores(self, windows: Sequence[LiveWindow]) -> list[LiveScores]:
        (scores,) = score_windows([(self, windows)])
        return [LiveScores(one.time_seconds, own) for one, own in zip(windows, scores, strict=True)]


@dataclass
class Costs:
    """Seconds of each part of the work on frames and windows."""

    pictures: float = 0.0
    encoder: float = 0.0
    decoder: float = 0.0

    @contextmanager
    def of(self, part: str, device: torch.device) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        setattr(self, part, getattr(self, part) + time.perf_counter() - started)


def score_windows(
    found: Sequence[tuple[Live, Sequence[LiveWindow]]], costs: Costs | None = None
) -> list[list[np.ndarray]]:
    """The scores (Y) of the windows that ``Live.choose`` returned, of one or several sources of one model.

    The frames of all sources that were chosen since the last call pass the encoder together, also those of windows that
    are not complete yet. So do the windows of all sources pass the decoder.
    """
    if not found:
        return []
    costs = costs or Costs()
    with torch.no_grad():
        _encode(found, costs)
    first, _ = found[0]
    with costs.of("decoder", first._encoder.device), evaluating([first.model]):
        if first.keeps_state:
            scores = [[own for window in windows for own in _read(live, [window])] for live, windows in found]
        else:
            flat = [window for _, windows in found for window in windows]
            parts = (flat[start : start + WINDOWS_AT_ONCE] for start in range(0, len(flat), WINDOWS_AT_ONCE))
            rows = iter([own for part in parts for own in _read(first, part)])
            scores = [[next(rows) for _ in windows] for _, windows in found]
    for live, windows in found:
        live.time_seconds = windows[-1].time_seconds if windows else live.time_seconds
    return scores


def _encode(found: Sequence[tuple[Live, Sequence[LiveWindow]]], costs: Costs) -> None:
    """Encodes the frames that have been chosen since the last call."""
    new: dict[int, tuple[Live, _Frame]] = {}
    for live, windows in found:
        for window in (*windows, *live._windows.open):
            new |= {id(frame): (live, frame) for frame in window.frames if frame.parts is None}
    waiting = list(new.values())
    for start in range(0, len(waiting), FRAMES_AT_ONCE):
        chunk = waiting[start : start + FRAMES_AT_ONCE]
        encoder = chunk[0][0]._encoder
        with costs.of("pictures", encoder.device):
            views = [encoder.views(frame.picture()) for _, frame in chunk]
        with costs.of("encoder", encoder.device):
            parts = encoder.encode(views)
        for place, (live, frame) in enumerate(chunk):
            # a copy, so that a frame that is kept does not keep the others of its batch
            frame.parts = [part[place : place + 1].clone() for part in parts] if len(chunk) > 1 else parts
            frame.picture, frame.number = None, next(_numbers)
            live.num_encoded += 1


def _read(live: Live, windows: Sequence[LiveWindow]) -> list[np.ndarray]:
    """The scores of windows whose frames are encoded."""
    if not windows:
        return []
    frames = {id(frame): frame for window in windows for frame in window.frames}
    place_of = {key: place for place, key in enumerate(frames)}
    places = np.array([[place_of[id(frame)] for frame in window.frames] for window in windows])
    parts = [torch.cat(same) for same in zip(*(frame.parts for frame in frames.values()), strict=True)]
    numbers = np.array([frame.number for frame in frames.values()])
    stream = GivenWindows(live._encoder, parts, numbers, places)
    ((scores,), _) = read(stream, [live._reader], batch_size=len(windows), world=World(0, 1, stream.device))
    return [scores[place] for place in range(len(windows))]


class _Frame:
    """A pushed frame: ``picture()`` (H,W,3) until it is encoded, then its ``parts`` (``FrameEncoder``) and its number,
    which no other frame of any source has."""

    def __init__(self, picture: Callable[[], np.ndarray]):
        self.picture: Callable[[], np.ndarray] | None = picture
        self.parts: list[Tensor] | None = None
        self.number = 0


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

    def step(features: Sequence[WindowFeatures]) -> Tensor:
        nonlocal state
        vectors, state = decoder.step(state, [one.clips(False) for one in features])
        return model.head(vectors).double().softmax(-1)

    return Reader(step, model.encoder.taps)
