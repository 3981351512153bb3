"""Pictures that move: which frames, where the colour is, and what the scale means."""

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from evl.demo.report import pictures
from evl.demo.report.page import ticks
from evl.demo.report.words import Score, relation


def frames_of(uri):
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    frames, durations = [], []
    for number in range(picture.n_frames):
        picture.seek(number)
        picture.load()
        frames.append(np.asarray(picture.convert("RGB"), np.float64))
        durations.append(picture.info["duration"])
    return frames, durations, picture.info.get("loop")


def saturation(picture):
    pixels = np.asarray(picture, np.float64)
    return pixels.max(-1) - pixels.min(-1)


@pytest.mark.parametrize("shape", [(8, 64, 64, 3), (1, 30, 97, 3), (5, 320, 200, 3)])
def test_frames_keep_order_form_and_colour(shape):
    frames = np.zeros(shape, np.uint8)
    for t in range(shape[0]):
        frames[t] = (20 + 25 * t, 200 - 25 * t, 90)
    before = frames.copy()
    made = pictures.clip_pictures(frames)
    got, durations, loop = frames_of(pictures.animated(made))
    assert len(got) == shape[0]
    assert max(got[0].shape) == pictures.LONG_SIDE
    assert got[0].shape[0] / got[0].shape[1] == pytest.approx(shape[1] / shape[2], rel=0.05)
    for t, one in enumerate(got):
        assert np.abs(one.mean((0, 1)) - before[t, 0, 0]).max() < 8
    if shape[0] > 1:
        assert durations[-1] > durations[0] == durations[1 if shape[0] > 2 else 0]
        assert loop == 0, "for ever"
    assert np.array_equal(frames, before)


def test_colour_is_where_the_attention_is():
    frames = np.random.default_rng(0).integers(0, 255, (3, 70, 70, 3), np.uint8)
    attention = np.zeros((3, 7, 7))
    attention[1, 2, 5] = 0.9
    attention[2, 2, 5] = 0.45
    before = attention.copy()
    painted = pictures.painted_pictures(frames, attention)
    assert saturation(painted[0]).max() == 0, "a frame that got nothing is grey"
    bright = [saturation(one) for one in painted]
    row, column = np.unravel_index(bright[2].argmax(), bright[2].shape)
    assert abs(row - 2.5 * 24) <= 12
    assert abs(column - 5.5 * 24) <= 12
    assert bright[1].argmax()
    light = [np.asarray(one.convert("L"), np.float64)[48:72, 120:144].mean() for one in painted]
    assert light[1] > light[2] + 20, "half the attention is darker than all of it"
    assert saturation(painted[1])[:, :72].max() == 0
    assert np.array_equal(attention, before)
    twice = pictures.painted_pictures(frames, 2 * attention)
    assert all(np.array_equal(one, other) for one, other in zip(painted, twice, strict=True))


def test_the_legend_has_the_colours_of_the_pictures():
    gray = np.full((1, 16, 16, 3), 128, np.uint8)
    legend = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in pictures.legend_colors(5)]
    for strength, wanted in zip((0, 0.25, 0.5, 0.75, 1), legend, strict=True):
        attention = np.full((2, 4, 4), strength)
        attention[1] = 1
        (one, _) = pictures.painted_pictures(np.concatenate([gray, gray]), attention)
        assert np.abs(np.asarray(one, int).reshape(-1, 3) - wanted).max() <= 1
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in legend]
    assert light == sorted(light), "more attention is never darker"


def test_no_attention_at_all_is_grey():
    frames = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), np.uint8)
    assert all(saturation(one).max() == 0 for one in pictures.painted_pictures(frames, np.zeros((2, 2, 2))))


def test_a_sheet_shows_frames_row_by_row():
    frames = np.zeros((6, 32, 32, 3), np.uint8)
    for t in range(6):
        frames[t] = 20 + 40 * t
    ((sheet,), _, _) = frames_of(pictures.sheet(pictures.clip_pictures(frames)))
    height, width = sheet.shape[0] / 2, sheet.shape[1] / 4
    for t in range(6):
        value = sheet[int(height * (t // 4 + 0.5)), int(width * (t % 4 + 0.5))]
        assert np.abs(value - (20 + 40 * t)).max() < 8


def test_two_scores_are_told_apart_only_where_intervals_do_not_touch():
    def score(low, high):
        return Score((low + high) / 2, low, high, ((low + high) / 2,))

    assert relation(score(5, 6), score(3, 4)) == "ahead"
    assert relation(score(3, 4), score(5, 6)) == "behind"
    assert relation(score(3, 5), score(5, 6)) == relation(score(5, 6), score(3, 5)) == "level"


@pytest.mark.parametrize("top", [0.03, 0.7, 1, 2.64, 9.99, 14, 100, 640, 1000, 12345])
def test_ticks_are_few_round_and_within(top):
    found = ticks(top)
    assert found[0] == 0
    assert 0.6 * top < found[-1] <= top * (1 + 1e-9)
    assert 3 <= len(found) <= 7
    assert len({round(b - a, 8) for a, b in itertools.pairwise(found)}) == 1
