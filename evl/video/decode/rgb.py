"""A decoded frame → an RGB picture of bytes, with the colors that a viewer sees and, if wanted, square pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from evl.video.decode.container import MAX_PIXELS, MAX_SIDE
from evl.video.decode.hdr import is_hdr, to_sdr

WIDEST_PIXEL = 4  # the largest ratio of a pixel's sides; real ones are at most 2, and headers with more are ignored


class ToRGB:
    """``to_rgb(frame)`` -> (H,W,3) uint8, not yet upright; HDR becomes SDR (``evl.video.decode.hdr``).

    ``pixel_shape``: width : height of the file's pixels, which become square; None leaves pixels as they are. Use one
    object for all frames of a file, because making it costs more than using it.
    """

    def __init__(self, pixel_shape: Fraction | None = None):
        self.pixel_shape = pixel_shape
        self.reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        options = {"threads": 1}
        if self.pixel_shape is not None:
            width, height = squared(frame.width, frame.height, self.pixel_shape)
            options |= {"width": width, "height": height, "interpolation": Interpolation.BICUBIC}
        if is_hdr(frame.color_trc):
            wide = self.reformatter.reformat(frame, format="rgb48le", **options).to_ndarray()
            return to_sdr(wide, frame.color_trc, frame.color_primaries)
        return self.reformatter.reformat(frame, format="rgb24", **options).to_ndarray()


def pixel_shape(stream: av.VideoStream) -> Fraction | None:
    """Width : height of a stream's pixels; None if they are square, or if the ratio is missing or not plausible.

    As in libav and in players, the container's ratio counts before the codec's.
    """
    shape = stream.sample_aspect_ratio
    is_odd = shape and shape != 1 and Fraction(1, WIDEST_PIXEL) <= shape <= WIDEST_PIXEL
    return shape if is_odd else None


def squared(width: int, height: int, shape: Fraction) -> tuple[int, int]:
    """(width, height) of a picture after its pixels of ``shape`` are made square.

    The width changes, as in players, or the height if the picture would become too large.
    """
    wide = max(1, round(width * shape))
    if wide > MAX_SIDE or wide * height > MAX_PIXELS:
        return width, max(1, round(height / shape))
    return wide, height
