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
from evl.video.rand_augment import _SHIFTS, RandAugment
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


@pytest.mark.parametrize(
    "notation", ["rand-m9-n3-mstd0.5-inc1", "rand-m7-n4-mstd0.5-inc1", "rand-m10-n2-mstd0.5", "rand-m9-p1.0"]
)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 51)])
def test_clips_equal_timm_on_single_pictures(notation, height, width):
    clip = made_clip(height, width)
    ours, theirs = RandAugment(notation, MEAN), rand_augment_transform(notation, dict(HPARAMS))
    changed = 0
    for seed in range(40):
        got = ours(torch.from_numpy(clip).permute(0, 3, 1, 2), np.random.default_rng(seed))
        draw = int(np.random.default_rng(seed).integers(2**32))
        for frame, result in zip(clip, got.permute(0, 2, 3, 1).numpy(), strict=True):
            random.seed(draw)
            np.random.seed(draw)  # noqa: NPY002
            assert (result == np.asarray(theirs(Image.fromarray(frame)))).all()
        changed += (got.permute(0, 2, 3, 1).numpy() != clip).any()
    assert changed > 20


@pytest.mark.parametrize("function", _SHIFTS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(("height", "width"), ENTRIES)
def test_shifts_equal_pillows(function, height, width):
    clip = made_clip(height, width, count=2)
    for amount in (0.0, 0.137, -0.29, 0.3, -0.45, 0.5, 1.7, -2.0):
        got = _SHIFTS[function](torch.from_numpy(clip), amount, fill=FILL).numpy()
        for frame, result in zip(clip, got, strict=True):
            picture = Image.fromarray(frame)
            expected = function(picture, amount, resample=Image.Resampling.BICUBIC, fillcolor=FILL)
            assert (result == np.asarray(expected)).all()


def test_the_shifts_are_among_timms_operations():
    """If timm renames them, clips are still right, but slow: this tells."""
    used = {operation.aug_fn.function for operation in RandAugment("rand-m7-n4-mstd0.5-inc1", MEAN).timm.ops}
    assert set(_SHIFTS) <= used
    assert auto_augment.rotate in used - set(_SHIFTS)


def test_the_argument_and_global_random_state_are_left_alone():
    clip = torch.from_numpy(numbered_frames(4, 48, 64)).permute(0, 3, 1, 2)
    before, ours = clip.clone(), RandAugment("rand-m7-n4-mstd0.5-inc1", MEAN)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = [ours(clip, np.random.default_rng(seed)) for seed in range(6)]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    two = [ours(clip, np.random.default_rng(seed)) for seed in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(clip, before)


def test_wrong_notation_is_told():
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3)
    for wrong in ("m9", "rand-x9"):
        with pytest.raises(ConfigError, match="timm's notation"):
            TrainingTransform(AugmentConfig(rand_augment=wrong), preprocessing)
