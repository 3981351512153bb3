"""Fixtures: a small labelled folder of real files, and a trained run."""

import os

import numpy as np
import pytest
import torch

from evl.config import RunConfig, replace
from evl.video.decode import missing
from tests.helpers import write_video

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
torch.backends.cudnn.allow_tf32 = False  # gpu tests compare with float32 on the CPU

missing.PAUSES = (0.001, 0.001, 0.001)  # many tests ask for a video that is not there

TINY = {
    "backbone": {"image_size": 32},
    "model": {"taps": "last 2", "mlp_dropout": 0.1, "head_dropout": 0.1},
    "clip": {"num_frames": 3, "stride": 2},
    "augment": {"rand_augment": None},
    "data": {"num_workers": 0, "val_fraction": 0.34},
    "training": {"steps": 6, "batch_size": 4, "eval_every": 3, "save_every": 2, "log_every": 2, "lr": 1e-3},
    "evaluation": {"num_clips": 2, "num_crops": 1, "batch_size": 3},
}


@pytest.fixture
def one_thread():
    """For tensors so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two classes of six short videos: bright and dark."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (folder / name).mkdir()
        for i in range(6):
            frames = rng.normal(level, 20, (12, 40, 56, 3)).clip(0, 255).astype(np.uint8)
            write_video(folder / name / f"{i} video.mp4", frames)
    return folder


@pytest.fixture
def tiny_config(videos):
    return replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(videos)}})


@pytest.fixture(scope="session")
def finished_run(videos, tmp_path_factory):
    """A run folder of a model that tells bright from dark."""
    from evl.training import train

    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(videos)}})
    config = replace(config, training={"steps": 30, "eval_every": 15, "save_every": 15})
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(config, out)
    return out
