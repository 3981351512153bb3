"""Recipes build, schedules start and end where they should."""

import pytest
import torch

from evl.config import RunConfig, replace
from evl.errors import ConfigError
from evl.recipes import RECIPES, get_recipe
from evl.saving import build_classifier
from evl.training.learner import learning_rate
from evl.training.run import with_steps


def test_schedule():
    config = get_recipe("k400_vitb16_8x16").training
    assert learning_rate(0, config) == 4e-4
    assert learning_rate(25_000, config) == pytest.approx(2e-4)
    assert learning_rate(49_999, config) < 1e-11
    warm = replace(get_recipe("k400_vitb16_8x16"), training={"warmup_steps": 10}).training
    assert [learning_rate(step, warm) for step in (0, 4, 9, 10)] == pytest.approx([4e-5, 2e-4, 4e-4, 4e-4])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("one_thread")
def test_every_recipe_builds(name):
    config = replace(get_recipe(name), backbone={"pretrained": False})
    with torch.device("meta"):
        model = build_classifier(config, [f"class {y}" for y in range(400)])
        clips = torch.zeros(2, config.clip.num_frames, 3, *model.backbone.spec.image_size)
        assert model(clips).shape == (2, 400)
    is_side = "_side_" in name
    num_layers = 4 if name.startswith("k400_vit") else 24 if "l14" in name else 12
    assert len(model.decoder.layers) == num_layers
    heads = (8 if "l14" in name else 5) if is_side else model.backbone.spec.num_heads
    assert model.decoder.layers[0].attention.num_heads == heads
    assert all(p.is_meta for p in model.parameters())


def test_steps_follow_from_the_number_of_videos():
    assert with_steps(RunConfig(), 10).training.steps == 200
    assert with_steps(RunConfig(), 1000).training.steps == 1875  # 30 epochs of batches of 16
    twice = replace(RunConfig(), training={"repeated_augmentation": 2})
    assert with_steps(twice, 1000).training.steps == 3750
    assert with_steps(get_recipe("k400_vitb16_8x16"), 10).training.steps == 50_000


def test_recipe_names():
    assert len([name for name in RECIPES if name.startswith("k400_vit")]) == 7
    with pytest.raises(ConfigError, match="did you mean k400_vitb16_8x16"):
        get_recipe("k400_vitb16_8x61")
