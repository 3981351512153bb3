"""Times of frames where a file's clock jumps: parts written one after the other (``cat a.ts b.ts``), a recorder that
was started again, a clock that runs over. Behind a jump, time is counted on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import av
from av.format import Flags

LONGEST_PAUSE = 10.0  # seconds, as of ffmpeg's command line; and as many times the usual step


class Clock:
    """The times of the frames of one stream; told of every packet, and of every frame that comes out of it."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self.may_jump = may_jump(container)
        self.step = 1 / float(stream.average_rate or 25)
        self._parts: list[list[float]] = [[]]
        self._last_dts: int | None = None
        self._has_gone_back = False

    def packet(self, packet: av.Packet) -> None:
        if packet.dts is not None and packet.size:
            self._has_gone_back |= self._last_dts is not None and packet.dts < self._last_dts
            self._last_dts = packet.dts

    def frame(self, time: float | None) -> None:
        part = self._parts[-1]
        if time is None:  # as in raw streams
            time = part[-1] + self.step if part else 0.0
        # that a frame alone goes back is not enough: some containers (H.264 in AVI) label frames in another order
        if part and time < part[-1] and self._has_gone_back:
            self._parts.append([time])
            self._has_gone_back = False
        else:
            part.append(time)

    @property
    def num_frames(self) -> int:
        return sum(map(len, self._parts))

    def seconds(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """(time of each frame, never going back; numbers of the frames in front of which the clock jumps).

        A frame behind a jump comes the usual step after the one before it.
        """
        parts = [sorted(part) for part in self._parts]
        steps = [after - before for part in parts for before, after in pairwise(part)]
        usual = median(steps) if steps else self.step
        times, jumps, shift = [], [], 0.0
        for part in parts:
            ahead = set(jumps_ahead(part)) if self.may_jump else set()
            for place, time in enumerate(part):
                if times and (place == 0 or place in ahead):
                    jumps.append(len(times))
                    shift = times[-1] + usual - time
                times.append(time + shift)
        return tuple(times), tuple(jumps)


def may_jump(container: av.container.InputContainer) -> bool:
    """Whether a long pause in this container is no pause: transport and program streams are cut and joined anywhere."""
    return bool(container.format.flags & Flags.ts_discont.value)


def jumps_ahead(times: Sequence[float]) -> list[int]:
    """Places in sorted times, in seconds, in front of which there is more than a pause."""
    steps = [after - before for before, after in pairwise(times)]
    longest = max(LONGEST_PAUSE, LONGEST_PAUSE * median(steps)) if steps else 0.0
    return [place for place, step in enumerate(steps, 1) if step > longest]
