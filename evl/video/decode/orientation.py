"""How stored pictures are turned and mirrored to be shown, from the display matrix that libav attaches to frames.

The matrix comes from the container, the codec or EXIF.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from evl.errors import VideoError

SLACK = 0.0175  # tangent of one degree, because files may hold rounded sines and cosines


class Orientation(NamedTuple):
    """One of eight orientations: a stored picture is mirrored left to right if ``is_mirrored``, and then turned
    counter-clockwise by ``quarter_turns`` (0 to 3)."""

    is_mirrored: bool = False
    quarter_turns: int = 0

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.quarter_turns % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture (H,W) or (H,W,3) as it is shown; the result shares its memory."""
        return np.rot90(picture[:, ::-1] if self.is_mirrored else picture, self.quarter_turns)


UPRIGHT = Orientation()
# the keys are the signs of (a, d) where rows stay rows, and of (b, c) where rows become columns: see ``_of_matrix``
_KEPT = {(1, 1): UPRIGHT, (-1, -1): Orientation(False, 2), (-1, 1): Orientation(True, 0), (1, -1): Orientation(True, 2)}
_SWAPPED = {(-1, 1): Orientation(False, 1), (1, -1): Orientation(False, 3), (1, 1): Orientation(True, 1),
            (-1, -1): Orientation(True, 3)}  # fmt: skip


class Orientations:
    """The orientations of the frames of one file; call it for the frames in decoding order.

    libav attaches a container's matrix to every frame. It attaches a matrix inside an H.264 or HEVC stream only to the
    frames that have it, although it may hold for others, too. So VideoError is raised if some frames have a matrix and
    others have none, and also if a matrix is not a quarter turn.
    """

    def __init__(self, path: str):
        self.path = path
        self._has_matrix: bool | None = None

    def of(self, frame: VideoFrame) -> Orientation:
        """The orientation of this frame. Raises VideoError."""
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
        self._compare(matrix is not None)
        if matrix is None:
            return UPRIGHT
        found = _of_matrix(np.frombuffer(matrix, np.int32, 9).tolist())
        if found is None:
            raise VideoError(
                self.path,
                "has a display matrix that is not a quarter turn (evl only turns and mirrors); write its pixels "
                "upright: ffmpeg -i FILE NEW.mp4",
            )
        return found

    def pass_by(self, frame: VideoFrame) -> None:
        """Checks a frame that is not wanted: 50 times as fast as ``of``, but only turned frames are noticed."""
        if frame.rotation:
            self._compare(True)

    def _compare(self, has_matrix: bool) -> None:
        if self._has_matrix not in (None, has_matrix):
            raise VideoError(
                self.path,
                "has a display matrix (to turn or mirror the picture) for some of its frames only; write it again: "
                "ffmpeg -i FILE NEW.mp4",
            )
        self._has_matrix = has_matrix


def _of_matrix(matrix: list[int]) -> Orientation | None:
    """The orientation from libav's nine numbers a b u, c d v, x y w; None if it is not a quarter turn.

    The pixel at (p, q) is shown at (ap + cq + x, bp + dq + y), with p to the right and q down. Scale and offset are
    ignored.
    """
    a, b, u, c, d, v, _, _, w = matrix
    if not any((a, b, c, d)):
        return UPRIGHT  # some programs leave the field empty
    if u or v or w < 0:
        return None
    if a and d and max(abs(b), abs(c)) <= SLACK * min(abs(a), abs(d)):
        return _KEPT[_sign(a), _sign(d)]
    if b and c and max(abs(a), abs(d)) <= SLACK * min(abs(b), abs(c)):
        return _SWAPPED[_sign(b), _sign(c)]
    return None


def _sign(number: int) -> int:
    return 1 if number > 0 else -1


def _unlisted(cls: type[Type], value: int) -> Type:
    """A member for a kind of side data that libav has and PyAV's enum lacks (EXIF, views of stereo films).

    Without it, PyAV raises ValueError for all side data of such a frame, and its display matrix cannot be read.
    """
    kind = object.__new__(cls)
    kind._name_, kind._value_ = f"UNLISTED_{value}", value
    return kind


Type._missing_ = classmethod(_unlisted)
