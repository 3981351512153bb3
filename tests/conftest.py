"""Fixtures: a small labelled folder of real files, and a trained run."""

import os
from multiprocessing.context import ForkServerContext

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from evl.config import RunConfig, replace
from tests import workers  # noqa: F401  (it shortens pauses here, too)
from tests.helpers import write_video

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
torch.backends.cudnn.allow_tf32 = False  # gpu tests compare with float32 on the CPU

# whatever asks first for worker processes: all that any of them needs is imported once, before they are forked
_preload = ForkServerContext.set_forkserver_preload
ForkServerContext.set_forkserver_preload = lambda self, names: _preload(self, [*names, "tests.workers"])

os.fsync = lambda file: None  # no test takes the power away; waiting for the disk is a third of a small run's time

_draw = {name: getattr(Figure, name) for name in ("savefig", "subplots", "colorbar")}


def _save_a_dot(figure, file, *, metadata=None, **options):
    """In the place of ``Figure.savefig``: with what is drawn before, it takes a third of a small run's time."""
    texts = PngInfo()
    for name, text in (metadata or {}).items():
        texts.add_itxt(name, text)
    Image.new("RGB", (1, 1)).save(file, format="png", pnginfo=texts)


class _Nothing:
    """Axes that take everything and draw nothing."""

    def __getattr__(self, name):
        return lambda *arguments, **options: self


def _blank(figure, *arguments, **options):
    return _draw["subplots"](figure, *arguments, **options) if arguments or options else _Nothing()


def _no_colorbar(figure, image, **options):
    return image if isinstance(image, _Nothing) else _draw["colorbar"](figure, image, **options)


_cheap = {"savefig": _save_a_dot, "subplots": _blank, "colorbar": _no_colorbar}
for _name, _function in _cheap.items():
    setattr(Figure, _name, _function)


@pytest.fixture
def real_pictures(monkeypatch):
    """Pictures are drawn; elsewhere their files are one dot, with the same metadata."""
    for name, function in _draw.items():
        monkeypatch.setattr(Figure, name, function)


TINY = {
    "backbone": {"image_size": 32},
    "model": {"decoder": "evl", "taps": "last 2", "mlp_dropout": 0.1, "head_dropout": 0.1},
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
