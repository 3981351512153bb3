"""Files that belong together are written together; where a death tore a pair, its reader says so."""

import csv
import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import evl
from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.errors import CheckpointError, DataError, RunError, SaveError
from evl.evaluation import Evaluation, write_evaluation
from evl.inference.embedding import Embeddings, write_embeddings
from evl.runtime.files import write_together
from evl.saving import build_classifier, save_model
from evl.training.sweeps.plot import read_sweep, write_sweep
from evl.training.sweeps.results import LearnerResult, SweepResult
from evl.types import Prediction, Sample
from tests.helpers import metrics_of


class Dead(BaseException):
    """A process that dies."""


@pytest.fixture
def dies_at(monkeypatch):
    """``dies_at(n)``: the n-th rename does not happen, nor does anything after it. Returns what renamed so far."""
    rename, made = os.replace, []

    def choose(number):
        made.clear()

        def replaced(source, target):
            if len(made) == number:
                raise Dead
            made.append(target)
            rename(source, target)

        monkeypatch.setattr(os, "replace", replaced)
        return made

    return choose


def model(seed):
    torch.manual_seed(seed)
    config = replace_settings(
        RunConfig(), backbone={"image_size": 32}, model={"taps": "last 1"}, clip={"num_frames": 2}
    )
    return build_classifier(config, ["cat", "dog"])


def vectors(seed, count=3):
    samples = tuple(Sample(f"{seed} {i}.mp4", "cat" if i else None, 0.5 if i else None) for i in range(count))
    return Embeddings(samples, np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32), {})


def test_a_full_disk_leaves_every_file_of_a_pair_as_it_was(tmp_path, monkeypatch):
    write_together({tmp_path / "a": "old", tmp_path / "b": b"old"})
    fsync = os.fsync
    for place in range(2):
        calls = []

        def full(descriptor, calls=calls, place=place):
            calls.append(descriptor)
            if len(calls) > place:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SaveError, match="No space left"):
            write_together({tmp_path / "a": "new", tmp_path / "b": b"new"})
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_weights_and_card(tmp_path, dies_at):
    save_model(model(1), tmp_path)
    wanted = evl.load(tmp_path).trainable_state()["head.linear.weight"]
    dies_at(0)
    with pytest.raises(Dead):
        save_model(model(2), tmp_path)
    assert evl.load(tmp_path).trainable_state()["head.linear.weight"].equal(wanted)
    dies_at(1)
    with pytest.raises(Dead):
        save_model(model(2), tmp_path)
    with pytest.raises(CheckpointError, match=r"not of the same model: .*save the model again, or go on with its run"):
        evl.load(tmp_path)
    dies_at(9)
    save_model(model(2), tmp_path)
    assert not evl.load(tmp_path).trainable_state()["head.linear.weight"].equal(wanted)


def test_other_scores_of_the_same_weights_are_another_pair(tmp_path):
    for name, top1 in (("a", 10.0), ("b", 20.0)):
        save_model(model(1), tmp_path / name, scores={"top1": top1, "protocol": "none"})
    shutil.copy(tmp_path / "b/model.json", tmp_path / "a/model.json")
    with pytest.raises(CheckpointError, match="not of the same model"):
        evl.load(tmp_path / "a")


def test_the_same_model_has_the_same_bytes_and_edited_weights_are_read(tmp_path):
    for name in ("a", "b"):
        save_model(model(1), tmp_path / name)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    with safe_open(tmp_path / "a/model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert file.metadata()["evl_pair_id"] == json.loads((tmp_path / "a/model.json").read_text())["pair_id"]
    tensors = safetensors.torch.load_file(tmp_path / "a/model.safetensors")
    tensors["head.linear.bias"] += 1
    safetensors.torch.save_file(tensors, tmp_path / "a/model.safetensors")  # by a person: it has no id
    assert evl.load(tmp_path / "a").trainable_state()["head.linear.bias"].equal(tensors["head.linear.bias"])


def test_vectors_and_their_list(tmp_path, dies_at):
    path = tmp_path / "v.npy"
    for suffix in ("npy", "parquet"):
        write_embeddings(tmp_path / f"v.{suffix}", vectors(1))
        found = evl.read_embeddings(tmp_path / f"v.{suffix}")
        np.testing.assert_array_equal(found.vectors, vectors(1).vectors)
        assert found.samples == vectors(1).samples
    dies_at(1)
    with pytest.raises(Dead):
        write_embeddings(path, vectors(2))
    with pytest.raises(DataError, match=r"v\.npy and v\.videos\.csv are not of the same evl embed.*run it again"):
        evl.read_embeddings(path)
    dies_at(9)
    write_embeddings(path, vectors(2))
    assert evl.read_embeddings(path).samples == vectors(2).samples


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.reverse(),
        lambda rows: rows.pop(),
        lambda rows: rows.append(rows[0]),
        lambda rows: rows[0].update(checksum="1"),
        lambda rows: [row.pop("checksum") for row in rows],
    ],
)
def test_a_list_of_other_vectors(tmp_path, change):
    write_embeddings(tmp_path / "v.npy", vectors(1))
    beside = tmp_path / "v.videos.csv"
    rows = list(csv.DictReader(beside.open()))
    change(rows)
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=r"not of the same evl embed|damaged, or no vectors"):
        evl.read_embeddings(tmp_path / "v.npy")


def test_vectors_that_are_not_there_or_damaged(tmp_path):
    with pytest.raises(DataError, match=r"v\.npy: no such file"):
        evl.read_embeddings(tmp_path / "v.npy")
    write_embeddings(tmp_path / "v.npy", vectors(1))
    (tmp_path / "v.videos.csv").unlink()
    with pytest.raises(DataError, match=r"v\.videos\.csv: no such file"):
        evl.read_embeddings(tmp_path / "v.npy")
    for name in ("v.npy", "v.parquet"):
        for content in (b"", b"nonsense"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match="damaged, or no vectors"):
                evl.read_embeddings(tmp_path / name)


def test_a_sweep_and_its_table(tmp_path, dies_at):
    def result(value):
        metrics = metrics_of(np.array([[3, 1], [1, value]]))
        judged = Evaluation(metrics, (), {}, "none", ("cat", "dog"))
        learner = LearnerResult(0, {"training.lr": "1"}, 10, ((1, 1e-3, 2.0, 50.0),), judged, None)
        return SweepResult(tmp_path, RunConfig(), (learner,))

    write_sweep(tmp_path, result(3))
    first = read_sweep(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["sweep_id"] for row in rows] == [first["sweep_id"]]
    dies_at(0)
    with pytest.raises(Dead):
        write_sweep(tmp_path, result(5))
    assert read_sweep(tmp_path) == first
    dies_at(1 + 1)  # the picture, then the table
    with pytest.raises(Dead):
        write_sweep(tmp_path, result(5))
    with pytest.raises(RunError, match=r"sweep\.csv and sweep\.json are not of the same sweep.*run the sweep again"):
        read_sweep(tmp_path)
    dies_at(9)
    write_sweep(tmp_path, result(5))
    assert read_sweep(tmp_path)["sweep_id"] != first["sweep_id"]
    write_sweep(tmp_path, result(3))
    assert read_sweep(tmp_path) == first  # of equal tables, each is that of the other
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(RunError, match=r"sweep\.json or sweep\.csv cannot be read"):
        read_sweep(tmp_path)


def test_predictions_and_metrics(tmp_path, dies_at, finished_run, videos):
    first = evl.evaluate(evl.load(finished_run), [Sample(str(p), p.parent.name) for p in sorted(videos.rglob("*.mp4"))])
    turned = [Prediction(p.path, p.scores[::-1], p.label, None, None, p.class_names) for p in first.predictions]
    second = replace(first, predictions=tuple(turned))
    write_evaluation(tmp_path, first, picture=False)
    assert evl.read_predictions(tmp_path).predictions[0].path == first.predictions[0].path
    for place in (1, 2):
        dies_at(place)
        with pytest.raises(Dead):
            write_evaluation(tmp_path, second, picture=False)
        if place == 1:
            with pytest.raises(DataError, match=r"not of the same evaluation.*run evl evaluate again"):
                evl.read_predictions(tmp_path)
    assert evl.read_predictions(tmp_path).predictions[0].scores[0] == pytest.approx(turned[0].scores[0])
    dies_at(9)
    write_evaluation(tmp_path, second, picture=False)
    shutil.copy(tmp_path / "predictions.parquet", tmp_path / "alone.parquet")
    (tmp_path / "metrics.json").write_text("{")  # what is no metrics says nothing
    assert len(evl.read_predictions(tmp_path / "alone.parquet").paths) == 12
    assert len(evl.read_predictions(tmp_path).paths) == 12
