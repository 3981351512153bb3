"""Shared by the tests of training."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from evl.config import replace
from evl.data.splits import find_splits
from tests.helpers import assert_close

# the side network's norms take away what these add in the last layer
WITHOUT_EFFECT = ("qkv_proj.bias", "1.attention.out_proj.bias", "1.mlp.fc2.bias", "decoder.norm.running_mean")


def with_broken_in_training(config):
    """The config with a seed whose split has the broken file on the training side."""
    for seed in range(20):
        config = replace(config, training={"seed": seed})
        if any("broken" in sample.path for sample in find_splits(config).splits["train"]):
            return config
    raise AssertionError("no such seed")


def weights(run):
    return load_file(run / "model.safetensors")


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one, other, without_effect=()):
    for a, b in zip(lines(one), lines(other), strict=True):
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    first, second = weights(one), weights(other)
    for name in first:  # a step moves each weight by up to lr (1e-3), whatever its gradient's rounding
        # the gradient of a key's bias is zero (softmax), so Adam follows rounding alone
        if not name.endswith(("k_proj.bias", *without_effect)):
            assert_close(first[name], second[name], relative=1e-3, floor=2e-4)


def in_two_processes(how, *commands):
    """Runs commands of evl, one after the other, in two processes: forked ones, or those of torchrun."""
    arguments = json.dumps([list(map(str, command)) for command in commands])
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2") if how == "torchrun" else ()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *torchrun, "-m", "tests.training.commands", arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
