"""Runs from a store: what a live run gives, without videos and without a backbone."""

import json
import os
import shutil
import signal
import time

import pytest
import torch

import evl
from evl.config import RunConfig, replace
from evl.data.manifests.manifest import read_manifest
from evl.errors import ConfigError, StoreError
from evl.evaluation import evaluate_views, load_for_store, read_predictions, views_of_store
from evl.extraction.extract import extract
from evl.runtime.distributed import World
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.streams.stored import StoredTrainingClips, read_ahead
from evl.training import Interrupted, train
from evl.training.checkpoint import list_checkpoints
from evl.training.loop import make_sampler
from tests.conftest import TINY
from tests.helpers import assert_close, run_command
from tests.training.helpers import lines, weights, with_broken_in_training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def config(videos, folder):
    """Two epochs of eight videos; a copy of the videos, which tests take away."""
    shutil.copytree(videos, folder / "videos")
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(folder / "videos")}})
    return replace(config, training={"steps": 4, "save_every": 3, "eval_every": 0, "log_every": 1})


@pytest.fixture(scope="module")
def stores(config, folder):
    """By form: two clips a video, so that no epoch sees a clip twice."""
    for form in ("tokens", "maps"):
        extract(config, folder / form, StoreOptions(form=form, dtype="float32", clips_per_video=2))
    return {form: folder / form for form in ("tokens", "maps")}


def on(config, store, **training):
    return replace(config, data={"path": None, "features": str(store)}, training=training)


def scores(run):
    found = read_predictions(run)
    return list(found.paths), torch.from_numpy(found.scores)


@pytest.fixture(scope="module")
def live(config, folder):
    train(config, folder / "live")
    return folder / "live"


def losses(run):
    return [line["loss"] for line in lines(run) if "loss" in line]


def assert_equal_to_rounding(run, live):
    assert len(losses(live)) == 4
    assert losses(run) == pytest.approx(losses(live), rel=1e-5)
    stored, wanted = weights(run), weights(live)
    assert stored.keys() == wanted.keys()
    for name, value in wanted.items():
        if not name.endswith("k_proj.bias"):  # its gradient is zero (softmax), so Adam follows rounding alone
            assert_close(stored[name], value, relative=1e-5, floor=1e-7)
    assert scores(run)[0] == scores(live)[0]
    assert_close(scores(run)[1], scores(live)[1], relative=1e-5, floor=2e-6)  # six digits are written


@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_a_run_from_a_store_is_the_live_run(config, stores, live, tmp_path, form):
    """Dropout, order, augmentation: all the same. What was stored in 32 bits gives the same numbers to rounding."""
    train(on(config, stores[form]), tmp_path / "run")
    assert_equal_to_rounding(tmp_path / "run", live)
    protocols = [lines(run)[-1]["final"]["protocol"] for run in (live, tmp_path / "run")]
    assert protocols[1] == f"{protocols[0]}, from a store ({form}, float32)"
    assert "2x1 views" in protocols[0]


def test_a_probe_reads_what_it_needs(config, stores, tmp_path):
    config = replace(config, model={"decoder": "attentive", "probe_blocks": 1})
    train(config, tmp_path / "live")
    train(on(config, stores["tokens"]), tmp_path / "run")
    assert_equal_to_rounding(tmp_path / "run", tmp_path / "live")


def test_half_precision_stays_near(config, folder, live, tmp_path):
    """Bounds are well above what was seen: of float16 7e-5 of the loss, 1e-5 of a score."""
    extract(config, folder / "half", StoreOptions(clips_per_video=2))
    train(on(config, folder / "half"), tmp_path / "half")
    assert losses(live) != losses(tmp_path / "half")
    assert losses(tmp_path / "half") == pytest.approx(losses(live), rel=1.2e-3)
    assert_close(scores(tmp_path / "half")[1], scores(live)[1], floor=2e-4)
    # and a run in bfloat16 is the live one in bfloat16, but for where features are rounded
    short = replace(config, training={"precision": "bf16", "steps": 2, "save_every": 2})
    train(short, tmp_path / "live16")
    train(replace(short, data={"features": str(folder / "half")}), tmp_path / "run16")
    assert losses(tmp_path / "run16") == pytest.approx(losses(tmp_path / "live16"), rel=0.02)


def test_nothing_but_the_store_is_read(config, stores, folder, tmp_path, monkeypatch):
    """No video is there, no backbone can be made; and what comes out is an ordinary model."""
    hidden = folder / "elsewhere"
    (folder / "videos").rename(hidden)
    from evl.saving import build
    from evl.saving import folder as stored

    def no_backbone(*arguments, **options):
        raise AssertionError("a backbone is made")

    try:
        with monkeypatch.context() as patch:
            for module in (build, stored):
                patch.setattr(module, "create_backbone", no_backbone)
            result = train(on(config, stores["tokens"], steps=2, save_every=2), tmp_path / "run")
            store = FeatureStore(stores["maps"])
            model = load_for_store(tmp_path / "run", store)
            (again,) = evaluate_views([model], views_of_store(model, store))
    finally:
        hidden.rename(folder / "videos")
    assert_close(
        torch.tensor([p.scores for p in again.predictions]),
        torch.tensor([p.scores for p in result.evaluation.predictions]),
    )
    live = evl.evaluate(evl.load(tmp_path / "run"), read_manifest(tmp_path / "run/val.csv").samples)
    assert_close(
        torch.tensor([p.scores for p in live.predictions]), torch.tensor([p.scores for p in again.predictions])
    )


def test_resumed_bit_exactly(config, stores, tmp_path):
    config = on(config, stores["tokens"], accumulation=2, clip_grad_norm=0.5)
    train(config, tmp_path / "whole")

    def press(progress):
        if (progress.phase, progress.step) == ("training", 2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped at step 2"):
        train(config, tmp_path / "parts", progress=press)
    assert list_checkpoints(tmp_path / "parts/checkpoints")[-1].name == "step_0000002.pt"
    train(None, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_batch_of_damaged_videos_alone_has_a_stand_in(config, videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/broken.mp4").write_bytes(b"broken" * 1000)
    config = replace(config, data={"path": str(tmp_path / "videos"), "max_damaged_share": 0.5})
    config = with_broken_in_training(replace(config, training={"batch_size": 1, "steps": 9}))
    extract(config, tmp_path / "store", StoreOptions(dtype="int8"))
    result = train(on(config, tmp_path / "store"), tmp_path / "run")
    assert len(result.damaged) == 1
    losses = [line["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    assert len(losses) == 8  # of the step without a clip there is none
    assert min(losses) > 0


def test_runs_of_frames(config, folder, tmp_path):
    """Epochs take other frames of one stored run, the same ones whenever they are asked for."""
    extract(config, folder / "long", StoreOptions(dtype="float32", frames=5))
    store = FeatureStore(folder / "long")
    longer = replace(config, training={"steps": 30})
    starts = set()
    for batch in stored_batches(longer, store):
        assert batch.clips.tokens[5].values.shape[:2] == (4, 3)
        whole = store.splits["train"].read([(index, 0) for index in batch.indices], [5]).tokens[5].values
        for clip, run in zip(batch.clips.tokens[5].values, whole, strict=True):
            fitting = [start for start in range(3) if torch.equal(clip, run[start : start + 3])]
            starts.update(fitting)
            assert fitting
    assert starts == {0, 1, 2}
    again = [batch.clips.tokens[5].values.clone() for batch in stored_batches(longer, store)]
    late = [batch.clips.tokens[5].values.clone() for batch in stored_batches(longer, store, 20)]
    assert all(torch.equal(a, b) for a, b in zip(again[20:], late, strict=True))
    train(on(config, folder / "long"), tmp_path / "run")


def test_differences_are_refused_all_at_once(config, stores, tmp_path):
    other = replace(config, clip={"num_frames": 4}, augment={"flip": 1.0}, model={"taps": "last 3"})
    with pytest.raises(StoreError) as told:
        train(on(other, stores["tokens"]), tmp_path / "run")
    for words in (
        "clip.num_frames is 4",
        "augment.flip is 1.0",
        "reads block 3",
        "make another store with evl extract",
    ):
        assert words in str(told.value)
    with pytest.raises(ConfigError, match="zero-shot needs the backbone"):
        train(replace(on(config, stores["tokens"]), model={"zero_shot_start": True}), tmp_path / "run")
    with pytest.raises(StoreError):
        train(on(config, tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_store_in_its_place_is_refused(config, stores, videos, tmp_path):
    shutil.copytree(stores["maps"], tmp_path / "store")
    train(on(config, tmp_path / "store", steps=4), tmp_path / "run")
    shutil.rmtree(tmp_path / "store")
    extract(replace(config, training={"seed": 1}), tmp_path / "store", StoreOptions(form="maps"))
    with pytest.raises(StoreError, match="holds other videos than this run was begun with"):
        train(None, tmp_path / "run", resume=True)


def test_from_the_command_line(config, stores, videos, tmp_path, capsys):
    """A store alone says what is to be done."""
    store, run = stores["tokens"], tmp_path / "run"
    settings = ("training.steps=4", "training.batch_size=4", "training.lr=1e-3", "model.head_dropout=0")
    code, _, said = run_command(capsys, "train", "--features", store, "--out", run, "--set", *settings)
    assert code == 0, said
    stored = RunConfig.from_yaml(run / "config.yaml")
    assert stored.data.features == str(store)
    assert (stored.clip, stored.model.taps, stored.model.head_dropout) == (config.clip, "last 2", 0)
    code, out, said = run_command(capsys, "evaluate", run, "--features", store, "--json", "--out", tmp_path / "judged")
    assert code == 0, said
    assert json.loads(out)["protocol"].endswith("from a store (tokens, float32)")
    assert scores(tmp_path / "judged")[0] == scores(run)[0]
    assert torch.equal(scores(tmp_path / "judged")[1], scores(run)[1])
    # its weights are the start of another one, whose decoder it names
    code, _, said = run_command(
        capsys, "train", "--features", store, "--init", run, "--out", tmp_path / "b", "--set", "training.steps=1"
    )
    assert code == 0, said
    assert RunConfig.from_yaml(tmp_path / "b/config.yaml").model.head_dropout == 0
    for arguments, wanted in (
        (("train", "--features", store, "--data", videos, "--out", tmp_path / "c"), "leave out --data"),
        (("train", "--features", store, "--resume", "--out", run), "leave out --features"),
        (("evaluate", run, "--features", store, "--split", "train"), "no views of a split 'train'"),
        (("evaluate", run, "--features", store, "--clips", "1"), "leave out --clips"),
    ):
        code, _, said = run_command(capsys, *arguments)
        assert code != 0
        assert wanted in " ".join(said.split())


def stored_batches(config, store, first=0):
    """The batches of a run, as they are read."""
    world, split = World(0, 1, torch.device("cpu")), store.splits["train"]
    reader = StoredTrainingClips(split, config.clip, config.training.seed)
    return read_ahead(reader.read, make_sampler(config.training, len(split), first, world), world.device)


def test_memory_is_used_again_but_never_what_is_held(config, stores):
    """A batch stays as it was read until the next one is asked for."""
    config = replace(config, training={"steps": 12})
    addresses = set()
    for batch in stored_batches(config, FeatureStore(stores["tokens"])):
        values = batch.clips.tokens[5].values
        copy = values.clone()
        time.sleep(0.02)  # others are read meanwhile
        assert torch.equal(values, copy)
        addresses.add(values.data_ptr())
    assert len(addresses) < 6  # of 12 batches


def test_what_reading_raises_comes_with_its_batch(config, stores, tmp_path):
    shutil.copytree(stores["maps"], tmp_path / "store")
    for shard in (tmp_path / "store/shards").iterdir():
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError):
        train(on(config, tmp_path / "store"), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # no step was done
