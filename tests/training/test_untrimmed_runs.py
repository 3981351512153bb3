"""Runs on untrimmed videos: background and moved ends, live and from a store."""

import numpy as np
import pytest
import torch

import evl
from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.data.dataset import Files, TrainingClips
from evl.data.splits import find_splits
from evl.extraction.extract import extract
from evl.store import FeatureStore, StoreOptions
from evl.training import train
from evl.types import BACKGROUND
from evl.video.augment import TrainingTransform
from evl.video.transforms import normalize
from tests.conftest import TINY
from tests.helpers import assert_close, write_video
from tests.training.helpers import lines

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two films: gray, and bright and dark for a while, which the list says."""
    folder, generator = tmp_path_factory.mktemp("untrimmed"), np.random.default_rng(0)
    rows = ["path,label,start_seconds,end_seconds,split"]
    for name, split in (("a", "train"), ("b", "val")):
        levels = np.repeat([120, 220, 120, 20, 120], 25)[:, None, None, None]
        frames = (levels + generator.normal(0, 20, (125, 40, 56, 3))).clip(0, 255).astype(np.uint8)
        write_video(folder / f"{name}.mp4", frames)
        rows += [f"{name}.mp4,bright,1,2,{split}", f"{name}.mp4,dark,3,4,{split}"]
    (folder / "segments.csv").write_text("\n".join(rows) + "\n")
    data = {**TINY["data"], "path": str(folder / "segments.csv"), "background": 1.5, "background_margin": 0.1}
    config = replace(RunConfig(), **{**TINY, "data": data})
    return replace(config, augment={"jitter_seconds": 0.3}, training={"steps": 3, "eval_every": 0, "log_every": 1})


def test_stored_clips_are_the_live_ones(config, tmp_path):
    extract(config, tmp_path / "store", StoreOptions(form="maps", dtype="float32", clips_per_video=2))
    store, found = FeatureStore(tmp_path / "store"), find_splits(config)
    assert store.class_names == found.class_names == ("bright", "dark", BACKGROUND)
    assert store.splits["train"].samples == found.splits["train"]
    assert len(found.splits["train"]) == len(found.splits["val"]) == 2 + 3
    backbone = create_backbone(config.backbone, config.model.taps)
    pre, files = backbone.preprocessing, Files(found.splits["train"])
    transform = TrainingTransform(config.augment, pre, found.class_names)
    clips = {}
    for jitter in (0.3, 0.0):
        dataset = TrainingClips(files, [0] * 5, config.clip, transform, config.training.seed, jitter_seconds=jitter)
        pixels = dataset[(1, 1)].pixels[None]
        clips[jitter] = backbone(normalize(pixels, pre.mean, pre.std))[-1].tokens
    stored = store.splits["train"].read([(1, 1)]).tokens[backbone.taps[-1]].unpack()
    assert_close(stored, clips[0.3])
    assert not torch.allclose(stored, clips[0.0], atol=1e-3)


@pytest.mark.slow
def test_a_run_from_a_store_is_the_live_run(config, tmp_path):
    extract(config, tmp_path / "store", StoreOptions(form="tokens", dtype="float32", clips_per_video=3))
    live = train(config, tmp_path / "live")
    stored = train(replace(config, data={"path": None, "features": str(tmp_path / "store")}), tmp_path / "stored")
    assert live.model.class_names == stored.model.class_names == ("bright", "dark", BACKGROUND)
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("live", "stored")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    line = evl.timeline(live.model, find_splits(config).splits["val"][0].path)
    assert BACKGROUND in line.class_names
    assert all(one.label != BACKGROUND for one in line.with_rules(type(line.rules)(on=0.0)).segments)
    result = evl.evaluate_timelines(tmp_path / "live", progress=False)  # its own validation videos
    assert (len(result.judged.videos), len(result.judged.events)) == (1, 2)
    assert result.class_names == ("bright", "dark")
