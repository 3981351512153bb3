"""Shared by the tests of training."""

from evl.config import replace
from evl.data.splits import find_splits


def with_broken_in_training(config):
    """The config with a seed whose split has the broken file on the training side."""
    for seed in range(20):
        config = replace(config, training={"seed": seed})
        if any("broken" in sample.path for sample in find_splits(config).splits["train"]):
            return config
    raise AssertionError("no such seed")
