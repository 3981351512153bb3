"""Evaluation views against the release's, and sizes by plain arithmetic."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import evl
from evl.types import Preprocessing
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from evl.video.transforms import crop_origins, evaluation_views, normalize, resize, resized_size
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


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(40, 61), (17, 9), (64, 64)])
def test_bytes_are_resized_like_floats_where_nothing_overshoots(height, width, interpolation, antialias):
    """Smooth pictures, which are a part of larger ones with channels last, as decoders write them. Each of the two
    passes rounds."""
    waves = [torch.linspace(0, k, n).sin() for k, n in ((4, 3), (5, height + 5), (6, width + 7), (2, 3))]
    whole = (127.5 + 100 * torch.einsum("f,h,w,c->fhwc", *waves)).byte().permute(0, 3, 1, 2)
    frames = whole[..., 2 : height + 2, 3 : width + 3]
    options = dict(interpolation=interpolation, antialias=antialias)
    got, expected = resize(frames, (24, 32), **options), resize(frames.float(), (24, 32), **options)
    assert got.dtype == torch.uint8
    assert (got.float() - expected).abs().max() < 1.3
    assert (got.float() - expected).abs().mean() < 0.35


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(40, 61), (17, 9), (64, 64)])
def test_bytes_are_resized_as_pillow_resizes_them(height, width, interpolation):
    frame = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    (got,) = resize(frame.permute(2, 0, 1)[None], (24, 32), interpolation=interpolation, antialias=True)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(frame.numpy()).resize((32, 24), filters[interpolation]))
    assert np.abs(got.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_normalising_bytes_equals_normalising_floats():
    frames = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    assert torch.equal(normalize(frames, mean, std), normalize(frames.float(), mean, std))
    plain = (frames.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert_close(normalize(frames, mean, std).double(), plain)


def test_one_opening_gives_the_views_that_plain_indexing_gives():
    path = GOLDEN / "videos" / sorted(case.split("/")[0] for case in CONFIG["cases"])[0]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    views = evl.read_views(path, num_frames=4, stride=5, num_clips=2, num_crops=3, size=24, mean=mean, std=std)
    frames = read_frames(path, range(probe(path).num_frames)).float()
    height, width = resized_size(*frames.shape[-2:], (24, 24))
    frames = normalize(resize(frames, (height, width), interpolation="bilinear", antialias=False), mean, std)
    clips = evl.clip_indices(len(frames), num_frames=4, stride=5, num_clips=2)
    crops = crop_origins(height, width, (24, 24), 3)
    expected = [frames[clip][..., top : top + 24, left : left + 24] for top, left in crops for clip in clips]
    assert_close(views, torch.stack(expected))
