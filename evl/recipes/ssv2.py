"""The recipes for Something-Something v2, which were reported but never released.

docs/method.md section 7 infers segment sampling, no flip, and a decoder layer for every block. Everything else is from
the Kinetics recipe. The views (1x3) are our choice. None of this was tested.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from evl.config import RunConfig, replace
from evl.recipes.kinetics import B16, L14, L14_336, released


def _ssv2(backbone: str, num_frames: int) -> RunConfig:
    kinetics = released(backbone, num_frames, 1, num_clips=1, num_crops=3)
    return replace(kinetics, model={"taps": "all"}, clip={"sampling": "segment"}, augment={"flip": 0.0})


SSV2: dict[str, Callable[[], RunConfig]] = {
    "ssv2_vitb16_8": partial(_ssv2, B16, 8),  # reported top-1: 61.0
    "ssv2_vitb16_16": partial(_ssv2, B16, 16),  # 61.7
    "ssv2_vitb16_32": partial(_ssv2, B16, 32),  # 62.4
    "ssv2_vitl14_8": partial(_ssv2, L14, 8),  # 65.1
    "ssv2_vitl14_32": partial(_ssv2, L14, 32),  # 66.7
    "ssv2_vitl14_336_32": partial(_ssv2, L14_336, 32),  # 68.0
}
