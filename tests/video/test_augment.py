"""One draw a clip, from the generator that is passed in, with timm's operations."""

import random

import numpy as np
import torch

from evl.config import AugmentConfig
from evl.types import Preprocessing
from evl.video.augment import (
    TrainingTransform,
    draw_crop,
    erase,
    mirrored_in_words,
    mirrored_labels,
    names_direction,
)
from tests.helpers import numbered_frames

PREPROCESSING = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, "bicubic", True)
CLIP = torch.from_numpy(numbered_frames(6, 48, 64)).permute(0, 3, 1, 2).contiguous()


def test_same_generator_same_clip():
    transform = TrainingTransform(AugmentConfig(erasing=0.5), PREPROCESSING)
    random.seed(1)
    before = CLIP.clone()
    one = [transform(CLIP, np.random.default_rng(seed)) for seed in range(8)]
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(4)
    two = [transform(CLIP, np.random.default_rng(seed)) for seed in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(torch.equal(one[0], other) for other in one[1:])
    assert torch.equal(CLIP, before)
    assert one[0].shape == (6, 3, 32, 32)


def test_global_random_state_is_left_alone():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    TrainingTransform(AugmentConfig(), PREPROCESSING)(CLIP, np.random.default_rng(0))
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_all_frames_see_the_same_draw():
    still = CLIP[:1].expand(5, -1, -1, -1)
    transform = TrainingTransform(AugmentConfig(flip=0.5), PREPROCESSING)
    for seed in range(20):
        clip = transform(still, np.random.default_rng(seed))
        assert all(torch.equal(frame, clip[0]) for frame in clip)


def test_crops_are_inside_and_of_the_asked_shape():
    generator = np.random.default_rng(0)
    shares, ratios = [], []
    for _ in range(2000):
        top, left, h, w = draw_crop(240, 320, area=(0.2, 0.9), ratio=(0.75, 4 / 3), generator=generator)
        assert 0 <= top <= 240 - h
        assert 0 <= left <= 320 - w
        shares.append(h * w / (240 * 320))
        ratios.append(w / h)
    assert 0.19 < min(shares) < 0.23
    assert 0.8 < max(shares) < 0.92
    assert 0.73 < min(ratios) < 0.78
    assert 1.3 < max(ratios) < 1.36
    assert draw_crop(10, 1000, area=(1, 1), ratio=(0.75, 4 / 3), generator=generator) == (0, 493, 10, 13)


def test_flip_and_names_that_tell_directions():
    assert names_direction(["Pushing something from left to right"])
    assert names_direction(["turn_clockwise"])
    assert not names_direction(["leftovers", "writing", "opening a door"])
    plain = AugmentConfig(rand_augment=None, crop_area=(1, 1), crop_ratio=(4 / 3, 4 / 3))
    always = TrainingTransform(AugmentConfig(None, (1, 1), (4 / 3, 4 / 3), flip=1.0), PREPROCESSING)
    never = TrainingTransform(plain, PREPROCESSING, ["moving left", "moving up"])
    one, other = (transform(CLIP, np.random.default_rng(0)) for transform in (always, never))
    assert torch.equal(one, other.flip(-1))
    assert TrainingTransform(plain, PREPROCESSING, ["run", "walk"]).flip == 0.5
    assert never.flip == 0


def test_erasing_is_one_box_in_all_frames():
    clip = torch.zeros(4, 3, 32, 32)
    erased = erase(clip, np.random.default_rng(1))
    where = erased.ne(0)
    assert clip.abs().max() == 0
    assert where.any()
    assert torch.equal(where[0], where[3])
    assert 0.015 < where[0, 0].float().mean() < 0.35


def test_mirrored_classes_are_found_by_their_names():
    names = [
        "Pulling something from left to right", "pulling [something] from right_to left.", "Turning clockwise",
        "turning counterclockwise", "Opening a door", "Moving left", "left hand", "Right hand", "Left hand!",
    ]  # fmt: skip
    # the last two left hands have one name but for punctuation, so nobody knows which is the right hand's
    assert mirrored_labels(names) == (1, 0, 3, 2, 4, None, None, None, None)
    lines = mirrored_in_words(names)
    assert lines[0] == "flipped clips exchange the labels of 2 pairs of classes"
    assert lines[1] == "  'Pulling something from left to right' ↔ 'pulling [something] from right_to left.'"
    assert lines[3].startswith("clips of 4 classes are not flipped, because no other class")
    assert lines[4] == "  'Moving left'"
    assert mirrored_labels(["turning anticlockwise", "turning clockwise", "turning counterclockwise"]) == (None,) * 3


def test_flips_exchange_labels():
    plain = dict(rand_augment=None, crop_area=(1, 1), crop_ratio=(4 / 3, 4 / 3))
    names = ["moving left", "moving right", "falling", "turning left"]
    pairs = TrainingTransform(AugmentConfig(flip="pairs", **plain), PREPROCESSING, names)
    never = TrainingTransform(AugmentConfig(flip=0.0, **plain), PREPROCESSING, names)
    seen = set()
    for seed in range(8):
        for label, other in ((0, 1), (1, 0), (2, 2), (3, None), (None, None)):
            clip, found = pairs.labelled(CLIP, label, np.random.default_rng(seed))
            unflipped, same = never.labelled(CLIP, label, np.random.default_rng(seed))
            assert same == label
            is_flipped = torch.equal(clip, unflipped.flip(-1))
            assert is_flipped or torch.equal(clip, unflipped)
            assert found == (other if is_flipped else label)
            seen.add((label, is_flipped))
    assert seen == {(0, True), (0, False), (1, True), (1, False), (2, True), (2, False), (3, False), (None, False)}
