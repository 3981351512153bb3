"""From numbers to pixels: where a picture lands, which way round, how large."""

import numpy as np
import pytest
from PIL import Image

from evl.datasets.drawing import NUM_TEXTURES, SIDE, draw_background, draw_frames, textures
from evl.datasets.templates import SIZE, Scene, Track


def dotted():
    """(48,48,4): a green square with a red right half."""
    picture = np.zeros((48, 48, 4), np.uint8)
    picture[8:40, 8:40] = 0, 255, 0, 255
    picture[8:40, 24:40] = 255, 0, 0, 255
    return picture


def scene_of(count=3, *, x=0.0, y=0.0, size=48.0, angle=0.0, opacity=1.0, shake=(0.0, 0.0)):
    track = Track(*(np.full(count, value) for value in (x, y, size, angle, opacity)))
    return Scene("none", (track,), (0,), np.tile(shake, (count, 1)))


def middle_of(frame, color):
    """(x, y, share of the frame) of the pixels of a colour, from the frame's centre."""
    others = [c for c in range(3) if c != color]
    pixels = frame.astype(int)
    rows, columns = np.nonzero((pixels[..., color] > 170) & (pixels[..., others].max(-1) < 60))
    return columns.mean() + 0.5 - SIZE / 2, rows.mean() + 0.5 - SIZE / 2, len(rows) / SIZE**2


@pytest.fixture
def frame_of(monkeypatch):
    """Draws one frame on plain grey."""
    monkeypatch.setattr(
        "evl.datasets.drawing.draw_background", lambda *_: Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    )
    return lambda scene: draw_frames(scene, [dotted()], np.random.default_rng(1))[0]


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (11.3, -7.8), (-30.5, 20.25)])
@pytest.mark.parametrize("size", [20.0, 33.0, 48.0])
def test_picture_lands_where_it_should(frame_of, x, y, size):
    frame = frame_of(scene_of(x=x - 1.5, y=y + 2.0, size=size, shake=(1.5, -2.0)))
    red, green = middle_of(frame, 0), middle_of(frame, 1)
    assert (red[0] + green[0]) / 2 == pytest.approx(x, abs=0.6)
    assert (red[1] + green[1]) / 2 == pytest.approx(y, abs=0.6)
    assert red[2] + green[2] == pytest.approx((size * 32 / 48) ** 2 / SIZE**2, rel=0.25)  # less its soft edge


@pytest.mark.parametrize(("angle", "direction"), [(0, (1, 0)), (90, (0, 1)), (180, (-1, 0)), (-90, (0, -1))])
def test_angles_are_clockwise(frame_of, angle, direction):
    frame = frame_of(scene_of(angle=float(angle)))
    red = np.array(middle_of(frame, 0)[:2])
    np.testing.assert_allclose(red / np.linalg.norm(red), direction, atol=0.15)


def test_opacity(frame_of):
    assert not (np.ptp(frame_of(scene_of(opacity=0.0)).astype(int), axis=-1) > 60).any()
    half = frame_of(scene_of(opacity=0.5))[SIZE // 2, SIZE // 2 + 8].astype(int)
    assert abs(half - [191, 64, 64]).max() < 30


def test_only_the_ground_changes_where_nothing_moves():
    frames = draw_frames(scene_of(12), [np.zeros((48, 48, 4), np.uint8)], np.random.default_rng(5))
    again = draw_frames(scene_of(12), [np.zeros((48, 48, 4), np.uint8)], np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))
    assert all(frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8 for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 3


def test_grounds_are_the_splits_own():
    assert len(textures(0, 0)) == NUM_TEXTURES
    train, test = ([np.asarray(t) for t in textures(0, split)] for split in (0, 2))
    assert all(t.shape == (SIDE, SIDE) and t.min() == 0 and t.max() == 255 for t in train + test)
    assert not any(np.array_equal(a, b) for a in train for b in train + test if a is not b)
    grounds = [np.asarray(draw_background(0, 0, np.random.default_rng(i))) for i in range(6)]
    assert np.std([ground.mean((0, 1)) for ground in grounds], axis=0).min() > 10
