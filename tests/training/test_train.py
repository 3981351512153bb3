"""Runs: resumed bit-exactly, equal over processes, robust against damage and full disks."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import evl
from evl.config import replace
from evl.data.manifests.manifest import read_manifest
from evl.errors import ConfigError, EVLError, RunError, SaveError
from evl.saving import build_classifier
from evl.training import train
from evl.training.checkpoint import list_checkpoints
from evl.training.learners import Learners
from tests.helpers import assert_close, run_command
from tests.training.helpers import assert_same_run, lines, weights, with_broken_in_training


def test_a_run_folder_holds_everything(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert names >= {
        "config.yaml", "environment.json", "class_names.txt", "train.csv", "val.csv", "metrics.jsonl", "metrics.json",
        "predictions.parquet", "confusion.csv", "confusion.png", "model.safetensors", "model.json", "checkpoints",
        "tensorboard", "best",
    }  # fmt: skip
    assert not any(name.endswith(".tmp") for name in names)
    card = json.loads((finished_run / "model.json").read_text())
    assert card["class_names"] == ["bright", "dark"]
    assert card["config"]["backbone"]["name"] == "evl_clip_tiny"
    assert len(card["backbone_hash"]) == 64
    assert card["preprocessing"]["image_size"] == [32, 32]
    assert card["scores"]["top1"] == 100
    assert not any(name.startswith("backbone") for name in weights(finished_run))
    predictions = evl.read_predictions(finished_run)
    assert predictions.scores.shape == (4, 2)
    assert (abs(predictions.scores.sum(1) - 1) < 1e-5).all()
    assert [path.name for path in list_checkpoints(finished_run / "checkpoints")] == [
        "step_0000015.pt",
        "step_0000030.pt",
    ]
    train_paths = {s.path for s in read_manifest(finished_run / "train.csv").samples}
    val_paths = {s.path for s in read_manifest(finished_run / "val.csv").samples}
    assert (len(train_paths), len(val_paths)) == (8, 4)
    assert not train_paths & val_paths
    assert list((finished_run / "tensorboard").iterdir())
    logged = lines(finished_run)
    assert logged[-1]["final"]["protocol"].startswith("3x2 frames, 2x1 views, 32px")
    assert {"step", "loss", "lr", "wait_share", "clips_per_second"} <= logged[0].keys()


def test_loaded_model_gives_the_same_logits(finished_run, videos):
    model = evl.load(finished_run)
    again = evl.load(finished_run / "best")
    assert not model.training
    clips = torch.randn(2, 3, 3, 32, 32)
    assert torch.equal(model(clips), evl.load(finished_run)(clips))
    assert again.class_names == ("bright", "dark")
    result = evl.evaluate(model, read_manifest(finished_run / "val.csv").samples)
    assert result.metrics.top1 == 100


def test_same_seed_same_weights_and_workers_do_not_matter(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "a")
    train(replace(tiny_config, data={"num_workers": 2}), tmp_path / "b")
    train(replace(tiny_config, training={"seed": 1}), tmp_path / "c")
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["decoder.query_token"], c["decoder.query_token"])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow), "fp16"])
def test_resume_is_bit_exact(tiny_config, tmp_path, precision):
    config = replace(tiny_config, training={"precision": precision})
    train(config, tmp_path / "whole")

    class Enough(Exception):
        pass

    def stop(progress):
        if (progress.phase, progress.step) == (
            "training",
            5,
        ):  # after a checkpoint at 4, with a step that will be done again
            raise Enough

    with pytest.raises(Enough):
        train(config, tmp_path / "parts", progress=stop)
    assert not (tmp_path / "parts/model.json").exists()
    result = train(None, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    one, other = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [(x["step"], x.get("loss")) for x in one] == [(x["step"], x.get("loss")) for x in other]
    assert result.evaluation.metrics.num_videos == 4


def test_ctrl_c_saves_and_resumes(tiny_config, tmp_path, capsys, monkeypatch):
    """By the command; signals come to its workers, too, as from a terminal or a batch system."""
    train(tiny_config, tmp_path / "whole")
    (tmp_path / "config.yaml").write_text(replace(tiny_config, data={"num_workers": 1}).to_yaml())
    steps, alive, step = [], [], Learners.step

    def press(learners, *arguments, **options):
        steps.append(step(learners, *arguments, **options))
        if len(steps) == 3:
            workers = multiprocessing.active_children()
            for number in (signal.SIGINT, signal.SIGTERM):
                for worker in workers:
                    os.kill(worker.pid, number)
            time.sleep(0.1)
            alive.extend(worker.is_alive() for worker in workers)
            os.kill(os.getpid(), signal.SIGTERM)
        return steps[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Learners, "step", press)
        code, _, messages = run_command(
            capsys, "train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run"
        )
    assert code == 130
    assert "stopped at step 3" in messages
    assert "go on with: evl train --out" in " ".join(messages.split())
    assert alive == [True]
    assert list_checkpoints(tmp_path / "run/checkpoints")[-1].name == "step_0000003.pt"
    train(None, tmp_path / "run", resume=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_accumulation_changes_only_rounding(tiny_config, tmp_path):
    plain = replace(tiny_config, model={"mlp_dropout": 0, "head_dropout": 0}, training={"clip_grad_norm": 0.5})
    train(plain, tmp_path / "one")
    train(replace(plain, training={"accumulation": 4}), tmp_path / "four")
    assert_same_run(tmp_path / "one", tmp_path / "four")


def test_a_full_disk_leaves_the_old_checkpoint(tiny_config, tmp_path):
    """The system itself refuses to write more: files may have at most as many bytes as the limit says."""
    torch.manual_seed(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:

        def fill(progress):
            if (progress.phase, progress.step) == ("training", 3):
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))

        with pytest.raises(SaveError, match=r"step_0000004\.pt could not be written \(File too large\)"):
            train(replace(tiny_config, training={"eval_every": 0}), tmp_path / "run", progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_0000002.pt"]
    result = train(None, tmp_path / "run", resume=True)
    assert result.evaluation is not None


def test_what_cannot_go_on_is_told(tiny_config, finished_run, tmp_path, videos):
    with pytest.raises(RunError, match="not empty; go on with `resume=True`"):
        train(tiny_config, finished_run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    with pytest.raises(RunError, match="not empty; choose another `out`"):
        train(tiny_config, tmp_path / "other")
    assert (tmp_path / "other/file").read_text() == "mine"
    with pytest.raises(RunError, match="no run to resume"):
        train(None, tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match=r"training\.lr cannot change"):
        train(None, finished_run, resume=True, settings=("training.lr=1",))
    with pytest.raises(ConfigError, match="give `data`"):
        train(replace(tiny_config, data={"path": None}), tmp_path / "x")
    (tmp_path / "one").mkdir()
    shutil.copytree(videos / "dark", tmp_path / "one/dark")
    with pytest.raises(ConfigError, match="needs at least two"):
        train(replace(tiny_config, data={"path": str(tmp_path / "one")}), tmp_path / "y")
    with pytest.raises(RunError, match="the loss is nan"):
        train(replace(tiny_config, training={"lr": 1e30}), tmp_path / "z")


def test_another_backbone_is_refused(finished_run, tmp_path, tiny_config):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    card = json.loads((copy / "model.json").read_text())
    card["backbone_hash"] = "0" * 64
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(EVLError, match="trained on other backbone weights"):
        evl.load(copy)
    checkpoint = list_checkpoints(copy / "checkpoints")[-1]
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "backbone_hash": "0" * 64}, checkpoint)
    with pytest.raises(EVLError, match="was made on other backbone weights"):
        train(None, copy, resume=True)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(EVLError, match="not a readable"):
        train(None, copy, resume=True)
    for content, sentence in (
        ("{", "damaged"),
        ('{"format_version": 99}', "upgrade evl"),
        ("{}", "format_version is None"),
        ('{"format_version": 3}', "Field required|missing"),
    ):
        (copy / "model.json").write_text(content)
        with pytest.raises(EVLError, match=sentence):
            evl.load(copy)
    with pytest.raises(EVLError, match="no saved model here"):
        evl.load(tmp_path)


def test_relative_data_is_the_same_data_when_resumed(tiny_config, tmp_path, videos, monkeypatch):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/9 broken.mp4").write_bytes(b"broken" * 1000)
    monkeypatch.chdir(tmp_path)
    config = with_broken_in_training(replace(tiny_config, data={"path": "videos", "max_damaged_share": 0.12}))
    train(config, "run")
    list_checkpoints(tmp_path / "run/checkpoints")[-1].unlink()
    monkeypatch.chdir("/")
    result = train(None, tmp_path / "run", resume=True)
    assert len(result.damaged) == 1
    assert len((tmp_path / "run/damaged.csv").read_text().splitlines()) == 2


def test_resuming_without_a_checkpoint_starts_again(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run")
    before = lines(tmp_path / "run")
    for checkpoint in list_checkpoints(tmp_path / "run/checkpoints"):
        checkpoint.unlink()
    train(None, tmp_path / "run", resume=True)
    kept = list_checkpoints(tmp_path / "run/checkpoints")
    shutil.copy(kept[-1], kept[0].with_name("step_0000001.pt"))  # as if the run had died before it removed this one
    train(None, tmp_path / "run", resume=True)  # finished: nothing is logged twice
    assert list_checkpoints(tmp_path / "run/checkpoints") == kept
    after = lines(tmp_path / "run")
    assert [x["step"] for x in after] == [x["step"] for x in before]


def test_a_resumed_run_reports_what_an_unbroken_one_does(tiny_config, tmp_path):
    config = replace(tiny_config, training={"log_every": 3, "eval_every": 0})  # checkpoints at 2, 4, 6
    train(config, tmp_path / "run")
    before = lines(tmp_path / "run")
    for checkpoint in list_checkpoints(tmp_path / "run/checkpoints")[1:]:
        checkpoint.unlink()
    (left,) = list_checkpoints(tmp_path / "run/checkpoints")
    assert left.name == "step_0000004.pt"
    train(None, tmp_path / "run", resume=True)
    assert [(x["step"], x.get("loss")) for x in lines(tmp_path / "run")] == [(x["step"], x.get("loss")) for x in before]


def test_weights_that_blew_up_are_not_saved(tiny_config, tmp_path):
    config = replace(tiny_config, training={"lr": 1e30, "save_every": 1, "log_every": 100, "eval_every": 0})
    with pytest.raises(RunError, match="not finite"):
        train(config, tmp_path / "run")
    for checkpoint in list_checkpoints(tmp_path / "run/checkpoints"):
        state = torch.load(checkpoint, weights_only=True)["learners"][0]["model"]
        assert all(value.isfinite().all() for value in state.values())


def test_what_is_refused_leaves_no_folder(tiny_config, tmp_path):
    for change, sentence in (
        ({"training": {"accumulation": 3}}, "take a multiple of 3"),
        ({"augment": {"rand_augment": "foo"}}, "timm's notation"),
        ({"model": {"taps": "last 9"}}, "has 5 blocks, but the last 9"),
    ):
        with pytest.raises(EVLError, match=sentence):
            train(replace(tiny_config, **change), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"file/run: no folder can be made here"):
        train(tiny_config, tmp_path / "file/run")
    with pytest.raises(ConfigError, match="no device named 'gpu'"):
        train(tiny_config, tmp_path / "run", device="gpu")


def test_a_model_cast_to_bfloat16_keeps_its_hash(tiny_config, tmp_path):
    import copy
    import pickle

    from evl.saving import save_model

    model = build_classifier(tiny_config, ["a", "b"]).to(torch.bfloat16)
    save_model(model, tmp_path)
    assert evl.load(tmp_path).backbone.weights_hash == model.backbone.weights_hash
    clips = torch.randn(1, 3, 3, 32, 32)
    one = evl.load(tmp_path)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(other(clips), one(clips))
    state = {name: value + 1e-3 for name, value in one.state_dict().items()}
    before = one.backbone.weights_hash
    one.load_state_dict(state)
    assert one.backbone.weights_hash != before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_save_a_checkpoint(tiny_config, tmp_path, number):
    """What a terminal or a batch system does, with workers, as early as can be."""
    config = replace(
        tiny_config, data={"num_workers": 1}, training={"steps": 2000, "save_every": 10**6, "eval_every": 5}
    )
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "evl", "train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment)
    for _ in range(600):
        if (tmp_path / "run/metrics.jsonl").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages[-3000:]
    assert "Traceback" not in messages
    assert "go on with: evl train --out" in " ".join(messages.split())
    assert len(list_checkpoints(tmp_path / "run/checkpoints")) == 1


def test_a_model_is_judged_in_its_own_precision(tiny_config, tmp_path):
    result = train(replace(tiny_config, training={"precision": "bf16"}), tmp_path / "run")
    assert ", bf16, 4 videos" in result.evaluation.protocol
    again = evl.evaluate(evl.load(tmp_path / "run"), read_manifest(tmp_path / "run/val.csv").samples, batch_size=3)
    assert again.protocol == result.evaluation.protocol
    assert [p.scores for p in again.predictions] == [p.scores for p in result.evaluation.predictions]
    best = json.loads((tmp_path / "run/best/model.json").read_text())["scores"]
    assert "1x1 views" in best["protocol"]


@pytest.mark.gpu
def test_training_on_cuda(tiny_config, tmp_path):
    result = train(replace(tiny_config, training={"steps": 30}), tmp_path / "run", device="cuda")
    assert result.evaluation.metrics.top1 == 100
    clips = torch.randn(2, 3, 3, 32, 32)
    cpu, cuda = evl.load(tmp_path / "run"), evl.load(tmp_path / "run", device="cuda")
    assert_close(cuda(clips.cuda()).cpu(), cpu(clips), relative=1e-3)
