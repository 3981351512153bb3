"""The times of frames in files whose clock jumps; after a jump, the time of the part before continues.

Clocks jump where files were joined (``cat a.ts b.ts``), where a recorder was started again, or where a clock overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import av
from av.format import Flags

LONGEST_PAUSE = 10.0  # seconds, as in ffmpeg's command line; and also 10 times the usual step


class Clock:
    """Collects the times of the frames of one stream.

    Call ``packet`` with every packet, and then ``frame`` with the time of every frame that is decoded from it.
    """

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
        # a frame that goes back is no jump by itself: some containers (H.264 in AVI) label frames in another order
        if part and time < part[-1] and self._has_gone_back:
            self._parts.append([time])
            self._has_gone_back = False
        else:
            part.append(time)

    @property
    def num_frames(self) -> int:
        return sum(map(len, self._parts))

    def seconds(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """(the never falling times of the frames, the numbers of the frames before which the clock jumps).

        The first frame after a jump comes the usual step after the frame before the jump.
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
    """Whether a long pause means a jump: yes in transport and program streams, which can be cut and joined anywhere."""
    return bool(container.format.flags & Flags.ts_discont.value)


def jumps_ahead(times: Sequence[float]) -> list[int]:
    """The positions in sorted times (seconds) before which the step is longer than a pause."""
    steps = [after - before for before, after in pairwise(times)]
    longest = max(LONGEST_PAUSE, LONGEST_PAUSE * median(steps)) if steps else 0.0
    return [place for place, step in enumerate(steps, 1) if step > longest]
