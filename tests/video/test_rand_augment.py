"""RandAugment of clips against timm's own on single pictures: the same draws, the same pixels."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.auto_augment import rand_augment_transform

from evl.config import AugmentConfig
from evl.errors import ConfigError
from evl.types import Preprocessing
from evl.video.augment import TrainingTransform
from evl.video.rand_augment import _EACH_PIXEL, _SHIFTS, Box, RandAugment, apply
from tests.helpers import numbered_frames

MEAN, FILL = (0.5, 0.4, 0.3), (128, 102, 76)
HPARAMS = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
ENTRIES = (48, 64), (33, 51), (51, 34), (1, 9), (9, 1)


def made_clip(height, width, count=3):
    """Noise with flat and steep places, where rounding shows."""
    clip = np.random.default_rng(height).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    clip[:, : height // 2, : width // 2] = 77
    clip[:, height // 2 :, : width // 3] = np.array([0, 255, 255], np.uint8)
    return clip


def by_timm(theirs, frame, draw):
    random.seed(draw)
    np.random.seed(draw)  # noqa: NPY002
    return np.asarray(theirs(Image.fromarray(frame)))


def draw_box(height, width, generator):
    top, left = int(generator.integers(height)), int(generator.integers(width))
    return Box(top, left, int(generator.integers(top, height)) + 1, int(generator.integers(left, width)) + 1)


@pytest.mark.parametrize(
    "notation", ["rand-m9-n3-mstd0.5-inc1", "rand-m7-n4-mstd0.5-inc1", "rand-m10-n2", "rand-m9-p1.0"]
)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 51)])
def test_crops_of_clips_equal_timm_on_single_pictures(notation, height, width):
    """Bit by bit: the whole picture, and parts of it, which are made of parts."""
    clip = made_clip(height, width)
    ours, theirs = RandAugment(notation, MEAN), rand_augment_transform(notation, dict(HPARAMS))
    generator, changed = np.random.default_rng(height), 0
    for draw in range(60):
        calls = ours.draw(draw)
        if (auto_augment.posterize, 0) in [(function, *arguments) for function, arguments, _ in calls]:
            continue  # Pillow 13 refuses it
        expected = np.stack([by_timm(theirs, frame, draw) for frame in clip])
        changed += (expected != clip).any()
        for box in (Box(0, 0, height, width), draw_box(height, width, generator), draw_box(height, width, generator)):
            got = apply(calls, torch.from_numpy(clip).permute(0, 3, 1, 2), box).permute(0, 2, 3, 1).numpy()
            names = [function.__name__ for function, *_ in calls]
            assert (got == expected[:, box.top : box.bottom, box.left : box.right]).all(), (names, box)
    assert changed > 30


@pytest.mark.parametrize("name", [*_SHIFTS, "rotate"])
@pytest.mark.parametrize(("height", "width"), ENTRIES)
def test_shifts_and_turns_equal_pillows(name, height, width):
    function = getattr(auto_augment, name)
    clip = made_clip(height, width, count=2)
    generator = np.random.default_rng(width)
    for amount in (0.0, 0.137, -0.29, 0.3, -0.45, 0.5, 1.7, -2.0, 30.0, -17.3, 90.0, 180.0):
        keywords = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
        expected = np.stack([np.asarray(function(Image.fromarray(frame), amount, **keywords)) for frame in clip])
        for box in (Box(0, 0, height, width), draw_box(height, width, generator)):
            got = apply([(function, (amount,), keywords)], torch.from_numpy(clip).permute(0, 3, 1, 2), box)
            part = expected[:, box.top : box.bottom, box.left : box.right]
            assert (got.permute(0, 2, 3, 1).numpy() == part).all(), (amount, box)


def test_posterizing_to_no_bit_is_black():
    clip = torch.from_numpy(made_clip(9, 9)).permute(0, 3, 1, 2)
    assert not apply([(auto_augment.posterize, (0,), {})], clip, Box(1, 2, 5, 6)).any()
    assert apply([(auto_augment.posterize, (1,), {})], clip, Box(1, 2, 5, 6)).any()


def test_the_known_functions_are_among_timms_operations():
    """If timm renames them, clips are still right, but slow: this tells."""
    used = {operation.aug_fn.function for operation in RandAugment("rand-m7-n4-mstd0.5-inc1", MEAN).timm.ops}
    known = {getattr(auto_augment, name) for name in (*_SHIFTS, *_EACH_PIXEL, "sharpness", "posterize")}
    whole = "auto_contrast equalize contrast rotate"
    assert used - known == {getattr(auto_augment, name) for name in whole.split()}
    for function in used:  # clips are changed by the function's name, so that reading does not import timm
        assert getattr(auto_augment, function.__name__) is function


def test_the_argument_and_global_random_state_are_left_alone():
    clip = torch.from_numpy(numbered_frames(4, 48, 64)).permute(0, 3, 1, 2)
    before, ours, box = clip.clone(), RandAugment("rand-m7-n4-mstd0.5-inc1", MEAN), Box(3, 5, 40, 60)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = [apply(ours.draw(seed), clip, box) for seed in range(9)]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    two = [apply(ours.draw(seed), clip, box) for seed in range(9)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(clip, before)


def test_wrong_notation_is_told():
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3)
    for wrong in ("m9", "rand-x9"):
        with pytest.raises(ConfigError, match="timm's notation"):
            TrainingTransform(AugmentConfig(rand_augment=wrong), preprocessing)
