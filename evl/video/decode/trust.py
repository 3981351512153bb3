"""Which of a decoder's frames can be trusted: those before which nothing is missing, lost or concealed.

A decoder goes on after a packet that it could not decode, and makes pictures of what it has: of a broken picture, of an
older one in its place. It marks some of them, loses others without an error (with several threads also the error), and
gives those that refer to them as good. So each packet must have its frame, and no frame is given before all packets in
front of its own have theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import av
from av.video.frame import PictureType

from evl.video.decode.index import FrameIndex

# a decoder keeps at most 16 frames to put them in order, and one for each of at most 16 threads
MOST_HELD = 48


class WrongIndexError(Exception):
    """Decoding returned other frames than the index has."""


class HeldFrames:
    """Frames, in the order in which they are shown. Each is held until all packets in front of its own have theirs.

    ``awaited``: the places of packets whose frames have not come.
    """

    def __init__(self):
        self.awaited: set[int] = set()
        self._held: deque[tuple[int, Any]] = deque()  # (place of its packet, frame)

    def _trusted(self) -> Iterator:
        first_awaited = min(self.awaited, default=math.inf)
        while self._held and self._held[0][0] < first_awaited:
            yield self._held.popleft()[1]


class AwaitedFrames(HeldFrames):
    """The frames of packets from key frame ``key`` on (None: from the first packet).

    Call ``sent`` for each packet whose picture the decoder must return, ``returned`` with what it returns, and ``end``.
    ``marks_keys``: whether the decoder says which frames are key frames.
    """

    def __init__(self, index: FrameIndex, key: int | None, *, marks_keys: bool):
        super().__init__()
        self.index, self.key, self.first, self.marks_keys = index, key, key or 0, marks_keys
        self._previous = self.first - 1

    def sent(self, place: int) -> None:
        # a frame that is shown before the key frame but stored after it may need frames that were not decoded
        if self.index.numbers[place] >= self.first:
            self.awaited.add(place)

    def returned(self, frame: av.VideoFrame) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) of the frames that can be trusted now, in order. Raises WrongIndexError."""
        number = self.index.number_at(frame.pts)
        if number is None or (frame.is_corrupt and number >= self.first):
            raise WrongIndexError
        if number < self.first:
            return
        if number <= self._previous or (number != self.key and self._previous + 1 == self.key):
            raise WrongIndexError
        is_key = frame.key_frame and frame.pict_type == PictureType.I
        if number == self.key and self.marks_keys and not is_key:
            raise WrongIndexError  # the container marks a frame as key that is not one
        self._previous = number
        place = int(self.index.packets[number])
        self.awaited.discard(place)
        self._held.append((place, (number, frame)))
        if len(self._held) > MOST_HELD:  # what it waits for does not come, and memory must not grow
            raise WrongIndexError
        yield from self._trusted()

    def end(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """The last frames. Raises WrongIndexError if a frame is missing."""
        if self.awaited:
            raise WrongIndexError
        yield from self._trusted()
