"""Vectors of videos: what the decoder or the mean of patches gives, over views, and their files."""

import csv
import dataclasses

import numpy as np
import pyarrow.parquet
import pytest
import torch

import evl
from evl.config import RunConfig, replace
from evl.data.dataset import EvaluationViews, Files
from evl.errors import ConfigError, DataError
from evl.evaluation import load_for_store, views_of_store
from evl.extraction.extract import extract
from evl.inference import embed, views_for
from evl.inference.embedding import write_embeddings
from evl.inference.predictor import predict_videos
from evl.saving import build_classifier, save_model
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.store.unpacker import open_unpacker
from evl.types import Sample
from tests.helpers import assert_close, numbered_frames, run_command, write_video


@pytest.fixture
def videos(tmp_path):
    for name, count in [("a/1", 30), ("a/2", 41), ("b/3", 25), ("b/4", 33)]:
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, numbered_frames(count)[::-1] if name.startswith("b") else numbered_frames(count))
    return tmp_path / "videos"


def test_what_is_not_finite_is_an_error(videos):
    """As with a mean of 1e308 in model.json: no score of "nan %", no vectors of NaN."""
    model = make()
    pixels = dataclasses.replace(model.card.preprocessing, mean=(1e308, 0.0, 0.0))
    model.card = dataclasses.replace(model.card, preprocessing=pixels)
    samples = [Sample(str(videos / name), "cat") for name in ("a/1.mp4", "b/3.mp4")]
    for use in (predict_videos, evl.evaluate):
        with pytest.raises(DataError, match=r"1\.mp4: what the model makes of it is not finite"):
            use(model, samples)
    with pytest.raises(DataError, match="is not finite"):
        embed(model, views_for(model, samples))


def make(**model):
    torch.manual_seed(3)
    clip, evaluation = {"num_frames": 2, "stride": 4}, {"num_clips": 2, "num_crops": 3}
    config = replace(RunConfig(), model={"decoder": "evl", "taps": "last 2", **model}, clip=clip, evaluation=evaluation)
    return build_classifier(config, ["cat", "dog"]).eval()


@pytest.mark.parametrize("pool", ["query", "mean"])
def test_a_vector_is_the_mean_over_views(videos, pool):
    model = make()
    samples = [Sample(str(path)) for path in sorted(videos.rglob("*.mp4"))]
    got = embed(model, views_for(model, samples), pool=pool, batch_size=3)
    assert got.samples == tuple(samples)
    assert got.vectors.dtype == np.float32
    clip, pixels = model.card.config.clip, model.card.preprocessing
    dataset = EvaluationViews(Files(samples), None, clip, pixels, num_clips=2, num_crops=3)
    for index, vector in enumerate(got.vectors):
        features = model.features(dataset[index].pixels)
        with torch.no_grad():
            if pool == "query":
                views = model.decoder(features)
            else:
                views = features[-1].tokens[:, :, model.backbone.spec.num_prefix_tokens :].mean((1, 2))
        assert len(views) == 6
        assert_close(torch.from_numpy(vector), views.mean(0))


def test_a_zero_shot_model_gives_what_it_compares_with_names(videos):
    model = make(decoder="zero_shot", taps="last 1", prompts=["a {}"])
    (sample, *_) = [Sample(str(path)) for path in sorted(videos.rglob("*.mp4"))]
    got = embed(model, views_for(model, [sample], num_clips=1, num_crops=1)).vectors[0]
    assert np.linalg.norm(got) == pytest.approx(1, rel=1e-5)
    assert len(got) == model.decoder.text.shape[1]


def test_files_hold_what_was_found(videos, tmp_path):
    samples = [Sample(str(path), path.parent.name, 0.0, 0.5) for path in sorted(videos.rglob("*.mp4"))]
    got = embed(make(), views_for(make(), samples, num_clips=1, num_crops=1))
    write_embeddings(tmp_path / "v.parquet", got, ["train"] * 4)
    write_embeddings(tmp_path / "v.npy", got)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), got.vectors)
    assert table["label"].to_pylist() == ["a", "a", "b", "b"]
    assert table["split"].to_pylist() == ["train"] * 4
    assert table["end_seconds"].to_pylist() == [0.5] * 4
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), got.vectors)
    rows = list(csv.DictReader((tmp_path / "v.videos.csv").open()))
    assert [row["path"] for row in rows] == [sample.path for sample in samples]


def test_from_a_store_they_are_the_same(videos, tmp_path, capsys):
    model = make()
    (videos / "list.csv").write_text(
        "path,label,split\na/1.mp4,a,train\nb/3.mp4,b,train\na/2.mp4,a,val\nb/4.mp4,b,val\n"
    )
    config = replace(
        model.card.config,
        data={"path": str(videos / "list.csv"), "num_workers": 0},
    )
    extract(config, tmp_path / "store", StoreOptions(dtype="float32"))
    save_model(model, tmp_path / "model")
    store = FeatureStore(tmp_path / "store")
    split = store.splits["val"]
    stored = load_for_store(tmp_path / "model", store)
    for pool in ("query", "mean"):
        live = embed(model, views_for(model, split.samples), pool=pool)
        assert_close(
            *(
                torch.from_numpy(one.vectors)
                for one in (embed(stored, views_of_store(stored, store, "val", labeled=False), pool=pool), live)
            )
        )
    code, stdout, _ = run_command(
        capsys, "embed", "--features", tmp_path / "store", "--neighbors", "--out", tmp_path / "v.parquet"
    )
    assert code == 0
    assert "2 videos among 2" in stdout
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table["split"].to_pylist() == ["train", "train", "val", "val"]
    assert_close(torch.tensor(table["vector"].to_pylist()[2:]), torch.from_numpy(live.vectors))


def test_the_middle_of_longer_runs(videos, tmp_path):
    """A store with runs of six frames, for a model of clips of two."""
    model = make()
    config = replace(
        model.card.config,
        data={"path": str(videos), "num_workers": 0, "val_fraction": 0.5},
    )
    extract(config, tmp_path / "store", StoreOptions(dtype="float32", frames=6))
    save_model(model, tmp_path / "model")
    store = FeatureStore(tmp_path / "store")
    split, stored = store.splits["train"], load_for_store(tmp_path / "model", store)
    got = embed(stored, views_of_store(stored, store, "train", labeled=False))
    unpacker = open_unpacker(store, stored.encoder.taps)
    for index, vector in enumerate(got.vectors):
        valid = min(6, split.num_valid(index, 0))
        start = (valid - 2) // 2
        features = unpacker(split.read([(index, 0)], frames=[[start, start + 1]]))
        with torch.no_grad():
            assert_close(torch.from_numpy(vector), stored.decoder(features)[0])


def test_the_list_of_videos_is_not_written_over(videos, tmp_path, capsys):
    table = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"path": [str(path) for path in sorted(videos.rglob("*.mp4"))], "label": list("aabb")}), table
    )
    before = table.read_bytes()
    code, _, stderr = run_command(
        capsys, "embed", "--backbone", "evl_clip_tiny", "--data", table, "--out", table, "--num-frames", 2
    )
    assert code == 1
    assert "written over" in stderr
    assert table.read_bytes() == before


def test_other_pools_and_endings_are_refused(videos, tmp_path):
    sample = Sample(str(next(videos.rglob("*.mp4"))))
    with pytest.raises(ConfigError, match="'query' or 'mean'"):
        embed(make(), views_for(make(), [sample]), pool="max")
    with pytest.raises(ConfigError, match=r"\.parquet or \.npy"):
        write_embeddings(tmp_path / "v.txt", embed(make(), views_for(make(), [sample])))


def test_the_command(videos, tmp_path, capsys):
    out = tmp_path / "v.npy"
    (videos / "b" / "5.mp4").write_bytes(b"not a video")
    arguments = ["--backbone", "evl_clip_tiny", "--data", videos, "--out", out, "--workers", 0, "--num-frames", 2]
    code, stdout, stderr = run_command(capsys, "embed", *arguments, "--neighbors")
    assert code == 1
    assert "5.mp4" in stderr
    assert "mean average precision" in stdout
    assert np.load(out).shape == (4, 128)
    code, _, stderr = run_command(capsys, "embed", "--backbone", "evl_clip_tiny", "--pool", "query", videos)
    assert code == 2
    code, _, stderr = run_command(capsys, "embed", "--backbone", "evl_clip_tiny", videos, "--out", tmp_path / "v.txt")
    assert code == 2
    assert ".parquet or .npy" in stderr
