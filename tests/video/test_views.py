"""Evaluation views against the release's, and sizes by plain arithmetic."""

import json
import math

import pytest
import torch
from safetensors import safe_open

import evl
from evl.types import Preprocessing
from evl.video.transforms import crop_origins, evaluation_views, resized_size
from tests.helpers import GOLDEN, assert_close

with safe_open(GOLDEN / "eval_views.safetensors", "pt") as file:
    CONFIG = json.loads(file.metadata()["config"])


@pytest.mark.parametrize("case", CONFIG["cases"])
def test_views_equal_the_release(case):
    views = CONFIG["cases"][case]
    with safe_open(GOLDEN / "eval_views.safetensors", "pt") as file:
        expected = file.get_tensor(case).transpose(1, 2)  # (V,C,T,H,W) -> (V,T,C,H,W)
    options = dict(
        num_frames=views["num_frames"],
        stride=views["stride"],
        num_clips=views["temporal_views"],
        num_crops=views["spatial_views"],
        size=views["size"],
        mean=CONFIG["mean"],
        std=CONFIG["std"],
    )
    path = GOLDEN / "videos" / case.split("/")[0]
    got = evl.read_views(path, **options)
    assert got.shape == expected.shape
    difference = (got - expected).abs()  # decoder builds may differ in the last bit of a pixel
    assert difference.max() < 0.02
    assert difference.mean() < 0.002
    assert torch.equal(evl.read_views(str(path), **options), got)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (1080, 1920), (33, 1000), (224, 224), (7, 5)])
def test_short_side_and_floor(height, width):
    h, w = resized_size(height, width, (224, 224))
    if height < width:
        assert (h, w) == (224, math.floor(width * 224 / height))
    else:
        assert (h, w) == (math.floor(height * 224 / width), 224)


def test_any_shape_covers_its_target():
    for height, width in [(10, 300), (300, 10), (64, 64), (65, 97)]:
        h, w = resized_size(height, width, (48, 80))
        assert h >= 48
        assert w >= 80
        assert h == 48 or w == 80


def test_crops():
    assert crop_origins(224, 398, (224, 224), 1) == [(0, 87)]
    assert crop_origins(224, 398, (224, 224), 3) == [(0, 0), (0, 87), (0, 174)]
    assert crop_origins(300, 224, (224, 224), 3) == [(0, 0), (38, 0), (76, 0)]
    with pytest.raises(ValueError, match="expected 1 or 3"):
        crop_origins(10, 10, (5, 5), 2)


@pytest.mark.parametrize(("interpolation", "antialias"), [("bilinear", True), ("bicubic", True), ("bicubic", False)])
def test_other_interpolations(interpolation, antialias):
    frames = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    preprocessing = Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3, interpolation, antialias)
    (view,) = evaluation_views(frames, [[0, 1]], 1, preprocessing)
    whole = torch.nn.functional.interpolate(
        frames.float(), size=(16, 24), mode=interpolation, antialias=antialias, align_corners=False
    ).clamp(0, 255)
    assert_close(view, (whole[..., 4:20] / 255 - 0.5) / 0.25)
    assert view.min() >= -2
    assert view.max() <= 2
