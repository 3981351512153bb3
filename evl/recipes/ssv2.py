"""Something-Something v2: reported, but never released. What docs/method.md section 7 infers: segment sampling, no
flip, a decoder layer for every block. The rest is Kinetics' recipe, and the views (1x3) are our choice: unproven."""

from __future__ import annotations

from evl.config import RunConfig, replace
from evl.recipes.kinetics import B16, L14, L14_336, released


def _ssv2(backbone: str, num_frames: int) -> RunConfig:
    kinetics = released(backbone, num_frames, 1, num_clips=1, num_crops=3)
    return replace(kinetics, model={"taps": "all"}, clip={"sampling": "segment"}, augment={"flip": 0.0})


def ssv2_vitb16_8() -> RunConfig:
    """ViT-B/16, 8 segments: reported top-1 61.0."""
    return _ssv2(B16, 8)


def ssv2_vitb16_16() -> RunConfig:
    """ViT-B/16, 16 segments: reported top-1 61.7."""
    return _ssv2(B16, 16)


def ssv2_vitb16_32() -> RunConfig:
    """ViT-B/16, 32 segments: reported top-1 62.4."""
    return _ssv2(B16, 32)


def ssv2_vitl14_8() -> RunConfig:
    """ViT-L/14, 8 segments: reported top-1 65.1."""
    return _ssv2(L14, 8)


def ssv2_vitl14_32() -> RunConfig:
    """ViT-L/14, 32 segments: reported top-1 66.7."""
    return _ssv2(L14, 32)


def ssv2_vitl14_336_32() -> RunConfig:
    """ViT-L/14 at 336 px, 32 segments: reported top-1 68.0."""
    return _ssv2(L14_336, 32)


SSV2 = (ssv2_vitb16_8, ssv2_vitb16_16, ssv2_vitb16_32, ssv2_vitl14_8, ssv2_vitl14_32, ssv2_vitl14_336_32)
