"""The windows of frames that come one by one, as those of a file (``evl.video.windows``). Only arithmetic.

A frame is any object: ``LiveWindows.push(time, frame)`` returns the windows that are complete with it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evl.errors import ConfigError
from evl.video.decode.clock import LONGEST_PAUSE
from evl.video.sampling import MICROSECONDS, lower_median, near_half
from evl.video.windows import WindowPlan

SMALL_STEP_BACK = MICROSECONDS  # a clock that was corrected by less is waited for
RECENT = 33  # frames whose distances tell the source's rate
USUAL_DISTANCE = MICROSECONDS // 25  # until two frames have come


class LiveClock:
    """The times of a source, in seconds -> microseconds from its first frame that never fall.

    A time that repeats, or goes back by less than a second, counts as the time before, until the source's clock is
    ahead again. If it goes back further, or ahead by more than 10 s and 10 usual distances, the clock was changed: the
    frame then comes one usual distance after the one before it.
    """

    def __init__(self):
        self.now = -1  # no frame yet
        self._origin = 0.0
        self._distances: deque[int] = deque(maxlen=RECENT)

    def tick(self, time_seconds: float) -> int:
        """The time of the next frame. Raises ConfigError for a time that is not finite."""
        time_seconds = float(time_seconds)
        if not np.isfinite(time_seconds):
            raise ConfigError(f"time_seconds is {time_seconds}: expected the time of the frame, in seconds")
        if self.now < 0:
            self._origin, self.now = time_seconds, 0
            return 0
        moved = round((time_seconds - self._origin) * MICROSECONDS) - self.now
        usual = self.distance or USUAL_DISTANCE
        if moved < -SMALL_STEP_BACK or moved > max(LONGEST_PAUSE * MICROSECONDS, LONGEST_PAUSE * usual):
            moved = usual
            self._origin = time_seconds - (self.now + usual) / MICROSECONDS
        elif moved > 0:
            self._distances.append(moved)
        self.now += max(0, moved)
        return self.now

    @property
    def distance(self) -> int:
        """The usual distance of frames, in microseconds; 0 if it is not known yet."""
        return lower_median(np.array(self._distances)) if self._distances else 0

    def seconds(self, microseconds: int) -> float:
        """A time of this clock in seconds of the source's clock, as it is now."""
        return self._origin + microseconds / MICROSECONDS


@dataclass
class LiveWindow:
    """``frames``: those of the window, so far. ``start``: its first moment. ``time_seconds``: its middle, by the clock
    of the source. ``middle``: the same in microseconds from the first frame, by a clock that never falls or jumps."""

    start: int
    frames: list[Any] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    time_seconds: float = 0.0
    middle: int = 0


class LiveWindows:
    """Chooses the frames of windows while they come. Raises ConfigError for steps that only a file has.

    For a source of a constant rate, the windows are those of a file with the same frames. A moment takes the last frame
    at most about half a frame after it, as in ``TimedSampling``; how long a frame is, the last 33 frames show.
    """

    def __init__(self, plan: WindowPlan):
        self.plan, self.timed = plan, plan.timed
        if self.timed is not None and plan.every_frames is not None:
            raise ConfigError("frames are picked by time here, so give `every_seconds` instead of `every_frames`")
        if self.timed is None and plan.every_seconds is not None:
            raise ConfigError(
                "frames are counted here, so `every_seconds` needs `frames_per_second`, the rate that the model's "
                "stride is meant for"
            )
        stride = plan.spacing.stride
        counted = [] if stride is None else [t * stride for t in range(plan.spacing.num_frames)]
        self.steps = counted if self.timed is None else self.timed.steps()
        self.clock = LiveClock()
        self.open: deque[LiveWindow] = deque()
        self.num_opened = 0
        self._count = -1
        self._latest: tuple[Any, int] | None = None  # the frame before, and its time
        self._ended_at: int | None = None  # the start of the last window that was complete

    def push(self, time_seconds: float, frame: Any, left_out: int = 0) -> list[LiveWindow]:
        """Takes the next frame; returns the windows that are complete with it, in order.

        ``left_out``: how many frames came before it that were not pushed; where frames are counted, they count.
        """
        now = self.clock.tick(time_seconds)
        self._count += 1 + left_out
        place, near, reach = self._count, 0, 1
        if self.timed is not None:
            distance = self.clock.distance
            near = near_half(distance)
            place, reach = now, max(1, distance - near)
        before, self._latest = self._latest, (frame, now)
        while (start := self._start(self.num_opened)) < place + reach:
            self.open.append(LiveWindow(start))
            self.num_opened += 1
        for window in self.open:
            for step in self.steps[len(window.frames) :]:
                moment = window.start + step
                if moment >= place + reach:
                    break
                is_past = before is not None and moment + near < place
                self._fill(window, before if is_past else self._latest)
        return self._complete()

    def finish(self) -> list[LiveWindow]:
        """The window, if any, that a file with these frames has at its end: its last frame repeats."""
        if self._latest is None:
            return []
        last = self._count if self.timed is None else self.clock.now
        if not self.open:
            self.open.append(LiveWindow(self._start(self.num_opened)))
        window = self.open[0]
        self.open = deque([window])
        slack = max(0, last - self.steps[-1])
        if window.start > last or (self._ended_at is not None and self._ended_at >= slack):
            return []
        while len(window.frames) < len(self.steps):
            self._fill(window, self._latest)
        return self._complete(end=self.clock.now)

    def _start(self, number: int) -> int:
        if self.timed is None:
            return number * (self.plan.every_frames or self.plan.spacing.stride)
        return int(self.plan.moment(number))

    def _fill(self, window: LiveWindow, chosen: tuple[Any, int]) -> None:
        window.frames.append(chosen[0])
        window.times.append(chosen[1])

    def _complete(self, end: int | None = None) -> list[LiveWindow]:
        done = []
        while self.open and len(self.open[0].frames) == len(self.steps):
            window = self.open.popleft()
            self._ended_at = window.start
            first, last = window.times[0], window.times[-1]
            if self.timed is not None:  # by moments, which rise also where a frame is shown for several of them
                first = window.start
                last = first + self.steps[-1] if end is None else end
            window.middle = (first + last) // 2
            window.time_seconds = self.clock.seconds(window.middle)
            done.append(window)
        return done
