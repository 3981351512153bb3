"""How a stored picture is turned and mirrored to be shown: the display matrix of a container, a codec or EXIF, as libav
hands it over with every frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from evl.errors import VideoError

SLACK = 0.0175  # tangent of one degree: the sine and cosine of a quarter turn may have been rounded


class Orientation(NamedTuple):
    """A stored picture is shown mirrored left to right if ``is_mirrored``, then turned counter-clockwise by
    ``quarter_turns`` (0 to 3): eight in all."""

    is_mirrored: bool = False
    quarter_turns: int = 0

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.quarter_turns % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture (H,W) or (H,W,3) as it is shown; a view of it."""
        return np.rot90(picture[:, ::-1] if self.is_mirrored else picture, self.quarter_turns)


UPRIGHT = Orientation()
# signs of (a, d) where rows stay rows, of (b, c) where they become columns: see ``_of_matrix``
_KEPT = {(1, 1): UPRIGHT, (-1, -1): Orientation(False, 2), (-1, 1): Orientation(True, 0), (1, -1): Orientation(True, 2)}
_SWAPPED = {(-1, 1): Orientation(False, 1), (1, -1): Orientation(False, 3), (1, 1): Orientation(True, 1),
            (-1, -1): Orientation(True, 3)}  # fmt: skip


class Orientations:
    """How the frames of one file are shown, asked in the order they are decoded in.

    A container's matrix comes with every frame. One inside an H.264 or HEVC stream comes with those frames only that
    have it, though it may hold for others: where some frames have one and some none, nobody can say, and VideoError is
    raised. So it is for a matrix that is no quarter turn.
    """

    def __init__(self, path: str):
        self.path = path
        self._has_matrix: bool | None = None

    def of(self, frame: VideoFrame) -> Orientation:
        """How this frame is shown. Raises VideoError."""
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
        self._compare(matrix is not None)
        if matrix is None:
            return UPRIGHT
        found = _of_matrix(np.frombuffer(matrix, np.int32, 9).tolist())
        if found is None:
            raise VideoError(
                self.path,
                "is to be shown through a matrix that is no quarter turn (evl turns and mirrors only); write its "
                "pixels upright: ffmpeg -i FILE NEW.mp4",
            )
        return found

    def pass_by(self, frame: VideoFrame) -> None:
        """For a frame that is not wanted: a fiftieth of the time of ``of``, but it only sees frames that are turned."""
        if frame.rotation:
            self._compare(True)

    def _compare(self, has_matrix: bool) -> None:
        if self._has_matrix not in (None, has_matrix):
            raise VideoError(
                self.path,
                "says of some of its frames only how they are to be turned or mirrored; write it anew: "
                "ffmpeg -i FILE NEW.mp4",
            )
        self._has_matrix = has_matrix


def _of_matrix(matrix: list[int]) -> Orientation | None:
    """Of libav's nine numbers a b u, c d v, x y w: what lies at (p, q) is shown at (ap + cq + x, bp + dq + y), p to the
    right and q down. None where sides do not stay parallel to sides. Lengths and place are not looked at."""
    a, b, u, c, d, v, _, _, w = matrix
    if not any((a, b, c, d)):
        return UPRIGHT  # a field that nobody filled, as some writers leave it
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
    """A kind of side data that libav has and PyAV's list lacks (EXIF, views of stereo films). Without it PyAV raises
    ValueError for all side data of such a frame, its display matrix among them."""
    kind = object.__new__(cls)
    kind._name_, kind._value_ = f"UNLISTED_{value}", value
    return kind


Type._missing_ = classmethod(_unlisted)
