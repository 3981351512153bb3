"""A decoded frame → an RGB picture of bytes, with the colors that a viewer sees and, if wanted, square pixels.

HDR pictures (PQ or HLG, ITU-R BT.2100) become SDR by the curves in ITU's recommendations; without this they look gray
and dark. Its functions are defined on numbers from 0 to 1, and tables of their values make the conversion fast.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from evl.video.decode.container import MAX_PIXELS, MAX_SIDE

WIDEST_PIXEL = 4  # the largest ratio of a pixel's sides; real ones are at most 2, and headers with more are ignored
PQ, HLG = 16, 18  # the numbers of transfer characteristics in ITU-T H.273, which H.264, HEVC and containers use
NAMES = {PQ: "PQ", HLG: "HLG"}
BT2020, UNSPECIFIED = 9, 2  # the numbers of primaries in H.273
SOURCE_PEAK = 1000.0  # cd/m²: BT.2100's nominal display of HLG, and the usual mastering display of PQ
SDR_WHITE = 203.0  # cd/m²: HDR's reference white (BT.2408), which becomes the brightest SDR
FULL_SCALE = 65280  # the code of 1.0 in libswscale's rgb48: 255 · 256
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])  # of BT.2020's primaries
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])  # BT.2087
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_STEPS = (1 << 16) - 1


class ToRGB:
    """``to_rgb(frame)`` -> (H,W,3) uint8, not yet upright; HDR becomes SDR (``evl.video.decode.rgb``).

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


def is_hdr(transfer: int) -> bool:
    """Whether ``transfer``, the ``color_trc`` of a frame or a stream, is PQ or HLG."""
    return transfer in NAMES


def to_sdr(picture: np.ndarray, transfer: int, primaries: int = BT2020) -> np.ndarray:
    """Converts a picture of R'G'B' codes in PQ or HLG, uint16 (H,W,3) as libswscale's rgb48, to BT.709, uint8 (H,W,3).

    BT.2390's EETF maps the light of each channel, up to 1000 cd/m², below 203 cd/m²; light below 88 cd/m² stays the
    same. BT.2087 converts wide colors (``primaries`` of BT.2020, or not specified) to BT.709. BT.1886 (gamma 2.4) gives
    the bytes for this light.
    """
    if transfer == PQ:
        light = _pq_to_light()[picture]  # (H,W,3) 0–1
    else:
        scene = _hlg_to_scene()[picture]
        gain = (scene @ LUMINANCE.astype(np.float32)) ** np.float32(0.2)  # BT.2100's OOTF for 1000 cd/m²: gamma 1.2
        nits = scene * gain[..., None]  # in units of 1000 cd/m²
        light = _nits_to_light()[_quarter_root(nits)]
    if primaries in (BT2020, UNSPECIFIED):
        light = light @ TO_BT709.T.astype(np.float32)
    return _light_to_bytes()[(np.sqrt(light.clip(0, 1)) * _STEPS + 0.5).astype(np.uint16)]


def pq_to_nits(code: np.ndarray) -> np.ndarray:
    """PQ's EOTF (BT.2100, SMPTE ST 2084): 0–1 -> cd/m²."""
    power = np.asarray(code, np.float64) ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """The inverse of PQ's EOTF: cd/m² -> 0–1."""
    power = (np.asarray(nits, np.float64) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_scene(code: np.ndarray) -> np.ndarray:
    """HLG's inverse OETF (BT.2100): 0–1 -> scene light, 0–1."""
    code = np.asarray(code, np.float64)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - _C) / _A) + _B) / 12)


def tone_mapped(nits: np.ndarray) -> np.ndarray:
    """BT.2390's EETF (Hermite spline, in PQ) from 1000 to 203 cd/m²: cd/m² -> light, where 1 means 203 cd/m²."""
    top = float(nits_to_pq(SOURCE_PEAK))
    code = np.clip(nits_to_pq(nits) / top, 0, 1)
    most = float(nits_to_pq(SDR_WHITE)) / top
    knee = 1.5 * most - 0.5
    t = np.clip((code - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return np.clip(pq_to_nits(np.where(code < knee, code, spline) * top) / SDR_WHITE, 0, 1)


@cache
def _pq_to_light() -> np.ndarray:
    return tone_mapped(pq_to_nits(_codes())).astype(np.float32)


@cache
def _hlg_to_scene() -> np.ndarray:
    return hlg_to_scene(_codes()).astype(np.float32)


@cache
def _nits_to_light() -> np.ndarray:
    """A table over the fourth root of light in units of 1000 cd/m², whose equal steps look nearly equal to the eye."""
    return tone_mapped(SOURCE_PEAK * (np.arange(_STEPS + 1) / _STEPS) ** 4).astype(np.float32)


def _quarter_root(shares: np.ndarray) -> np.ndarray:
    return (np.sqrt(np.sqrt(shares.clip(0, 1))) * _STEPS + 0.5).astype(np.uint16)


@cache
def _light_to_bytes() -> np.ndarray:
    light = (np.arange(_STEPS + 1) / _STEPS) ** 2
    return np.rint(255 * light ** (1 / 2.4)).astype(np.uint8)


def _codes() -> np.ndarray:
    return np.minimum(np.arange(1 << 16) / FULL_SCALE, 1)
