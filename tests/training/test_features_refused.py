"""What a run from a store cannot be begun with, or gone on with."""

import json
import shutil

import pytest
import timm
import torch

import evl
from evl.config import RunConfig, replace
from evl.errors import ConfigError, RunError, StoreError
from evl.evaluation import load_for_store
from evl.extraction.extract import extract
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.training import train
from tests.conftest import TINY
from tests.helpers import run_command


@pytest.fixture(scope="module")
def config(videos):
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(videos)}})
    return replace(config, training={"steps": 2, "save_every": 1, "eval_every": 0})


def on(config, store, **sections):
    return replace(config, data={"path": None, "features": str(store)}, **sections)


def test_the_hash_of_a_weights_file_decides_not_its_name(config, tmp_path):
    """Where there is no such file, as on another machine, its name does."""
    for folder, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        (tmp_path / folder).mkdir()
        torch.save(timm.create_model("test_vit").state_dict(), tmp_path / folder / "w.pth")
    shutil.copy(tmp_path / "a/w.pth", tmp_path / "renamed.pth")

    def with_weights(name):
        return replace(config, backbone={"name": "test_vit", "weights": str(tmp_path / name), "image_size": 32})

    extract(with_weights("a/w.pth"), tmp_path / "store", StoreOptions(form="maps"))
    with pytest.raises(StoreError, match=r"b/w\.pth has the hash \w{12}… and those in the store"):
        train(on(with_weights("b/w.pth"), tmp_path / "store"), tmp_path / "run")
    with pytest.raises(StoreError, match=r"weights is elsewhere\.pth in the run and w\.pth in the store"):
        train(on(with_weights("elsewhere.pth"), tmp_path / "store"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(on(with_weights("renamed.pth"), tmp_path / "store"), tmp_path / "run")
    assert evl.load(tmp_path / "run").card.config.backbone.weights == str(tmp_path / "renamed.pth")
    store = FeatureStore(tmp_path / "store")
    assert load_for_store(tmp_path / "run", store).encoder.weights_hash == store.description.backbone_hash


def test_a_run_goes_on_with_the_features_it_was_begun_with(config, tmp_path):
    """Wherever they lie by then; and says all that is different of others."""
    at, moved, run = tmp_path / "store", tmp_path / "moved", tmp_path / "run"
    extract(config, at, StoreOptions(form="maps", clips_per_video=2))
    train(on(config, at), run)
    told = json.loads((run / "features.json").read_text())
    assert told["hash"] == FeatureStore(at).description.fingerprint_hash
    at.rename(moved)
    with pytest.raises(StoreError, match=r"store: the store .* if it was moved, .* `data\.features=STORE`"):
        train(None, run, resume=True)
    train(None, run, resume=True, settings=(f"data.features={moved}",))
    extract(config, at, StoreOptions(form="maps", dtype="int8"))
    with pytest.raises(StoreError) as caught:
        train(None, run, resume=True)
    for words in (
        "options.dtype is int8 in the store and was float16",
        "options.clips_per_video is 1 in the store and was 2",
    ):
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match="cannot go on with a store, nor the other way round"):
        train(None, run, resume=True, settings=("data.features=null",))
    for torn in ("", "[]", '{"fingerprint": 3}'):
        (run / "features.json").write_text(torn)
        with pytest.raises(RunError, match=r"features\.json: missing or damaged"):
            train(None, run, resume=True, settings=(f"data.features={moved}",))


def test_options_that_a_store_would_ignore_are_refused(config, tmp_path, capsys):
    store, run, out = tmp_path / "store", tmp_path / "run", tmp_path / "out"
    extract(config, store, StoreOptions(form="maps"))
    train(on(config, store), run)
    from_store = ("train", "--features", store, "--out", out)
    for arguments, wanted in (
        ((*from_store, "--draws", "7"), "--draws goes with --shots"),
        ((*from_store, "--keep-runs"), "--keep-runs goes with --shots"),
        (
            (*from_store, "--set", "data.path=/nonexistent", "data.val_fraction=0.9", "training.steps=1"),
            "leave out data.path, data.val_fraction, or read the videos instead",
        ),
        (("sweep", *from_store[1:], "--set", "data.layout=folder"), "leave out data.layout"),
        (
            ("train", "--data", "videos", "--out", out, "--set", f"data.features={store}"),
            "leave out --data, or data.features=",
        ),
        (("train", "--data", "videos", "--resume", "--shots", "1", "--out", out), "leave out --data, --shots"),
        (("evaluate", run, "--features", store, "--layout", "ucf101"), "--layout"),
        (("evaluate", run, "--features", store, "--split-number", "3"), "--split-number"),
    ):
        code, _, said = run_command(capsys, *arguments)
        assert code != 0, arguments
        assert wanted in " ".join(said.replace("│", " ").split()), arguments
    assert not out.exists()
    told = ("training.steps=1", "data.max_damaged_share=0.5", "training.save_every=1")
    code, _, said = run_command(capsys, *from_store, "--set", *told)
    assert code == 0, said
