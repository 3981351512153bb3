"""A decoded frame → a picture of bytes, as a viewer sees its colours and, if wanted, the shape of its pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from evl.video.decode.container import MAX_PIXELS, MAX_SIDE
from evl.video.decode.hdr import is_hdr, to_sdr

WIDEST_PIXEL = 4  # times as wide as high, or as high as wide; real ones come to 2, and a claim of more is not believed


class ToRGB:
    """``to_rgb(frame)`` -> (H,W,3) uint8, not yet turned upright; HDR as SDR (``evl.video.decode.hdr``).

    ``pixel_shape``: width : height of the file's pixels, which become square; None: pixels are left as they are. One
    for all frames of a file: to make it costs more than to use it.
    """

    def __init__(self, pixel_shape: Fraction | None = None):
        self.pixel_shape = pixel_shape
        self.reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        how = {"threads": 1}
        if self.pixel_shape is not None:
            width, height = squared(frame.width, frame.height, self.pixel_shape)
            how |= {"width": width, "height": height, "interpolation": Interpolation.BICUBIC}
        if is_hdr(frame.color_trc):
            wide = self.reformatter.reformat(frame, format="rgb48le", **how).to_ndarray()
            return to_sdr(wide, frame.color_trc, frame.color_primaries)
        return self.reformatter.reformat(frame, format="rgb24", **how).to_ndarray()


def pixel_shape(stream: av.VideoStream) -> Fraction | None:
    """Width : height of a stream's pixels, the container's word before the codec's, as libav and players have it; None
    where they are square, where nothing is said, or what nobody can believe."""
    shape = stream.sample_aspect_ratio
    is_odd = shape and shape != 1 and Fraction(1, WIDEST_PIXEL) <= shape <= WIDEST_PIXEL
    return shape if is_odd else None


def squared(width: int, height: int, shape: Fraction) -> tuple[int, int]:
    """(width, height) of a picture whose pixels were ``shape`` and are square: the width changes, as in players; where
    that would be too large a picture, the height."""
    wide = max(1, round(width * shape))
    if wide > MAX_SIDE or wide * height > MAX_PIXELS:
        return width, max(1, round(height / shape))
    return wide, height
