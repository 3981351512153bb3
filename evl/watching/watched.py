"""One source while it is watched: its windows, its segments and its time. It has no thread and no clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evl.inference.live import Live
from evl.inference.online_segments import Begun, SegmentTracker
from evl.inference.segments import Segment, SegmentRules
from evl.video.live_windows import LiveWindow
from evl.video.sampling import MICROSECONDS
from evl.watching.events import Event
from evl.watching.room import Opened, Shown


class WatchedSource:
    """``seconds`` count from the source's first frame, over breaks, in which they are those of this computer.

    ``make_live()``: a new ``Live``; after a break, windows begin anew, so that none has frames from before and after.
    ``newest``: class name and score of the newest window.
    """

    def __init__(
        self, name: str, make_live: Callable[[], Live], class_names: Sequence[str], rules: SegmentRules, *, scores: bool
    ):
        self.name, self.make_live, self.class_names, self.gives_scores = name, make_live, class_names, scores
        self.tracker = SegmentTracker(class_names, rules)
        self.live: Live | None = None
        self.offset = 0.0  # seconds at the first frame of the part that is read
        self.seconds, self.arrived = 0.0, 0.0  # of the newest frame
        self._end = 0.0  # of the part before
        self.newest: tuple[str, float] | None = None
        self.frames = self.windows = self.windows_left_out = self._encoded = 0
        self.state = "waiting"

    @property
    def num_encoded(self) -> int:
        """Frames that passed the encoder."""
        return self._encoded + (0 if self.live is None else self.live.num_encoded)

    def open(self, opened: Opened, wall: float) -> list[Event]:
        """A part begins: the source's first one, or the next one after a break."""
        self.live, self.state = self.make_live(), "connected"
        if opened.resumes and self.frames:
            self.offset = max(self._end, self.seconds + opened.arrived - self.arrived)
        self.arrived, self.seconds = opened.arrived, self.offset
        return self._events(self.tracker.begin_part(self.offset), wall)

    def choose(self, shown: Shown) -> list[LiveWindow]:
        """The windows that a frame completes. After frames that were left out, only the newest one."""
        windows = self.live.choose(shown.rgb, shown.time_seconds, shown.left_out)
        self.frames += 1
        self.arrived, self.seconds = shown.arrived, self.offset + self.live.elapsed_seconds
        if shown.left_out and len(windows) > 1:
            self.windows_left_out += len(windows) - 1
            windows = windows[-1:]
        return windows

    def score(
        self, windows: Sequence[LiveWindow], scores: Sequence[np.ndarray], wall: float, delay: float | None
    ) -> list[Event]:
        """The events of windows with these scores. ``wall``: the computer's time when the newest frame was read."""
        found = []
        for window, own in zip(windows, scores, strict=True):
            seconds = self.offset + window.middle / MICROSECONDS
            self.windows += 1
            best = int(own.argmax())
            self.newest = self.class_names[best], float(own[best])
            if self.gives_scores:
                table = dict(zip(self.class_names, own.tolist(), strict=True))
                found.append(self._event("scores", seconds, wall, scores=table, delay_seconds=delay))
            found += self._events(self.tracker.push(seconds, own), wall, delay_seconds=delay)
        return found

    def break_off(self, wall: float) -> list[Event]:
        """The part ends with its newest frame."""
        if self.live is None:
            return []
        self._encoded += self.live.num_encoded
        self._end = self.seconds + self.live.frame_seconds
        self.live = None
        return self._events(self.tracker.end_part(self._end), wall)

    def pass_time(self, now: float, wall: float) -> list[Event]:
        """Nothing has come until ``now``, by the clock of arrivals, in a break."""
        if self.live is not None or not self.frames:
            return []
        return self._events(self.tracker.pass_time(self.seconds + now - self.arrived), wall)

    def finish(self, wall: float) -> list[Event]:
        """Everything ends."""
        found = self.break_off(wall)
        return found + self._events(self.tracker.finish(self._end), wall)

    def say(self, state: str, text: str, wall: float) -> Event:
        return Event("state", self.name, self.seconds, wall, state=state, text=text)

    def _events(self, found: Sequence[Begun | Segment], wall: float, **more: Any) -> list[Event]:
        events = []
        for one in found:
            if isinstance(one, Begun):
                event = self._event("begin", one.start_seconds, wall, **more)
            else:
                event = self._event("end", one.end_seconds, wall, start_seconds=one.start_seconds, **more)
            events.append(replace(event, label=one.label, score=one.score))
        return events

    def _event(self, kind, seconds: float, wall: float, **more: Any) -> Event:
        return Event(kind, self.name, seconds, wall - max(0.0, self.seconds - seconds), **more)
