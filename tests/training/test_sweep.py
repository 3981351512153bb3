"""Sweeps: what may vary, learners as runs alone, one chosen, what is left behind."""

import csv
import json
import os
import shutil
import signal

import pytest
import torch

import evl
from evl.config import RunConfig, replace
from evl.data.manifests.manifest import read_manifest
from evl.errors import ConfigError, RunError, StoreError
from evl.extraction.extract import extract
from evl.store.description import StoreOptions
from evl.training import Interrupted, train
from evl.training.learners import Learners
from evl.training.run_folder import RunFolder
from evl.training.sweeps.grid import expand, split_values
from evl.training.sweeps.sweep import sweep
from tests.conftest import TINY
from tests.training.helpers import lines, weights

GRID = ("training.lr=1e-3,1e-4", "model.temporal_conv=true,false", "training.log_every=1")


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all():
    """For tensors so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def config(videos, folder):
    """Of twelve videos, six train, three validate and three test."""
    rows = [("path", "label", "split")]
    for name in ("bright", "dark"):
        for i, path in enumerate(sorted((videos / name).iterdir())):
            rows.append((path, name, ("train", "train", "train", "val", "val", "test")[i]))
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(folder / "manifest.csv")}})
    return replace(config, training={"eval_every": 0})


@pytest.fixture(scope="module")
def store(config, folder):
    extract(config, folder / "store", StoreOptions(dtype="float32", clips_per_video=4))
    return folder / "store"


@pytest.fixture(scope="module")
def live(config, folder):
    return sweep(config, GRID, folder / "live", together=1)


@pytest.fixture(scope="module")
def stored(config, store, folder):
    on_store = replace(config, data={"path": None, "features": str(store)})
    return sweep(on_store, GRID, folder / "stored")


def by_number(result):
    return sorted(result.ranked, key=lambda learner: learner.number)


def test_every_head_is_the_run_of_its_settings(config, live, folder):
    """Dropout, initial values, order of clips: all as in a run alone."""
    assert [learner.settings for learner in by_number(live)] == [
        {"training.lr": lr, "model.temporal_conv": conv} for lr in ("1e-3", "1e-4") for conv in ("true", "false")
    ]
    for number, lr, conv in ((1, 1e-3, False), (2, 1e-4, True)):
        alone = replace(config, training={"lr": lr, "log_every": 1}, model={"temporal_conv": conv})
        result = train(alone, folder / f"alone {number}")
        learner = folder / "live/learners" / f"{number:03d}"
        wanted, got = weights(folder / f"alone {number}"), weights(learner)
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
        assert (learner / "config.yaml").read_text() == (folder / f"alone {number}/config.yaml").read_text()
        losses = [
            [line["loss"] for line in lines(run) if "loss" in line] for run in (learner, folder / f"alone {number}")
        ]
        assert len(losses[0]) == 6
        assert losses[0] == losses[1]
        ours = by_number(live)[number].evaluation
        assert ours.protocol == result.evaluation.protocol
        for one, other in zip(ours.predictions, result.evaluation.predictions, strict=True):
            assert (one.path, one.label) == (other.path, other.label)
            assert one.scores == other.scores


def test_a_store_gives_the_same_sweep(live, stored, folder):
    """And learners together in one call the same as one after the other."""
    for one, other in zip(by_number(stored), by_number(live), strict=True):
        got, wanted = (weights(folder / name / f"learners/{one.number:03d}") for name in ("stored", "live"))
        for name in wanted:  # where a gradient is nothing but rounding, AdamW takes steps that are, too
            assert (got[name] - wanted[name]).norm() <= 1e-3 * wanted[name].norm(), name
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    assert "from a store" in stored.best.evaluation.protocol
    assert stored.test is not None
    for learner in ("learners/000", "best"):  # so that it can be gone on with as any run
        assert RunFolder(folder / "stored" / learner).fingerprint()["options.dtype"] == "float32"


def test_one_is_chosen_by_val_and_judged_once_on_test(live, folder):
    ranks = [(-learner.evaluation.metrics.top1, learner.val_loss) for learner in live.ranked]
    assert ranks == sorted(ranks)
    assert live.test.metrics.num_videos == 2
    model = evl.load(folder / "live/best")
    manifest = read_manifest(folder / "manifest.csv")
    again = evl.evaluate(model, manifest.splits["test"])
    assert [one.scores for one in again.predictions] == [pytest.approx(one.scores) for one in live.test.predictions]
    chosen = weights(folder / f"live/learners/{live.best.number:03d}")
    assert all(torch.equal(chosen[name], value) for name, value in weights(folder / "live/best").items())
    assert model.card.scores["num_videos"] == 2
    assert len(evl.read_predictions(folder / "live/best/test")) == 2
    assert "no learner was chosen by these videos" in live.verdict


def test_what_is_written(live, folder):
    out = folder / "live"
    told = json.loads((out / "sweep.json").read_text())
    assert told["chosen"] == live.best.number
    assert told["verdict"] == live.verdict
    assert [learner["learner"] for learner in told["learners"]] == [learner.number for learner in live.ranked]
    assert len(told["learners"][0]["curve"]) == 6
    assert not list((out / "learners").glob("*/predictions.parquet"))  # only what was asked for
    best = evl.read_predictions(out / "best")
    assert list(best.paths) == [one.path for one in live.best.evaluation.predictions]
    with open(out / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any("top5" in name for name in [*rows[0], *told["learners"][0], *told["test"]])  # of two classes
    assert [int(row["learner"]) for row in rows] == [learner.number for learner in live.ranked]
    assert float(rows[0]["val_top1"]) == live.best.evaluation.metrics.top1
    assert rows[0]["training.lr"] == live.best.settings["training.lr"]
    assert (out / "sweep.png").is_file()


def test_without_a_test_split_the_score_is_called_optimistic(videos, config, tmp_path):
    config = replace(config, data={"path": str(videos)})
    result = sweep(config, ["training.lr=1e-3,1e-4", "training.steps=2"], tmp_path / "out")
    assert result.test is None
    assert "optimistic" in result.verdict
    assert evl.load(tmp_path / "out/best").card.scores["chosen_among"] == 2
    assert sweep(config, ["training.steps=2"], tmp_path / "one").verdict == "one learner: nothing was chosen"


def test_decoders_of_any_kind_and_blocks_in_one_pass(config, tmp_path, monkeypatch):
    """Blocks are the union of what learners read; every video is looked at once a step for all of them."""
    from evl.backbones.timm_vit import TimmBackbone

    seen = []
    real = TimmBackbone.tap
    monkeypatch.setattr(
        TimmBackbone, "tap", lambda self, frames, *rest: seen.append(self.taps) or real(self, frames, *rest)
    )
    grid = ["model.decoder=evl,linear,attentive", "model.taps=[3,5],[4]", "training.steps=2", "model.mlp_dropout=0.1"]
    result = sweep(config, grid, tmp_path / "out")
    assert seen == [(3, 4, 5)] * 2 + [(3, 4, 5)] * 2 + [(3, 4, 5)]  # steps, val videos, test videos
    for learner in by_number(result):
        assert learner.evaluation is not None
        assert evl.load(tmp_path / f"out/learners/{learner.number:03d}").backbone.taps == {
            "[4]": (4,), "[3,5]": (3, 5) if learner.settings["model.decoder"] == "evl" else (5,),
        }[learner.settings["model.taps"]]  # fmt: skip


def test_seeds_are_of_initial_values_and_the_clips_are_shared(config, tmp_path):
    result = sweep(config, ["training.seed=1,2", "training.steps=1"], tmp_path / "out")
    assert result.config.training.seed == config.training.seed
    one, other = (weights(tmp_path / f"out/learners/00{n}") for n in range(2))
    assert not torch.equal(one["decoder.query_token"], other["decoder.query_token"])
    assert json.loads((tmp_path / "out/sweep.json").read_text())["shared_seed"] == config.training.seed


def test_heads_that_explode_are_dropped(config, tmp_path):
    result = sweep(config, ["training.lr=1e-3,1e30"], tmp_path / "out")
    assert [learner.problem is None for learner in result.ranked] == [True, False]
    assert "lower training.lr" in result.ranked[1].problem
    assert not (tmp_path / "out/learners/001").exists()
    told = json.loads((tmp_path / "out/sweep.json").read_text())
    assert told["learners"][1]["train_loss"] is None
    with pytest.raises(RunError, match="all 2 learners were dropped"):
        sweep(config, ["training.lr=1e29,1e30"], tmp_path / "none")


def test_learners_with_scores_that_are_not_finite_lose(config, store, tmp_path, monkeypatch, caplog):
    spoiled: set[float] = set()

    def end(learners):
        """Before they are judged: say, the last step made weights so large that scores overflow."""
        for learner in learners.all:
            if learner.config.training.lr in spoiled:
                learner.model.head.linear.weight.data.fill_(torch.nan)

    monkeypatch.setattr(Learners, "release", end)
    on_store = replace(config, data={"path": None, "features": str(store)})
    grid = ["training.lr=1e-3,1e-4,1e-5"]
    spoiled |= {1e-3, 1e-5}
    result = sweep(on_store, grid, tmp_path / "out", together=1)
    assert [learner.number for learner in result.ranked] == [1, 0, 2]
    assert [learner.problem is None for learner in result.ranked] == [True, False, False]
    assert caplog.text.count("its scores are not finite on the validation videos") == 2
    assert sorted(os.listdir(tmp_path / "out/learners")) == ["001"]

    spoiled |= {1e-4}
    with pytest.raises(RunError, match=r"none was chosen: .*not finite"):
        sweep(on_store, grid, tmp_path / "none", together=1)


@pytest.mark.parametrize(("moment", "said"), [(("training", 2), "at step 2"), (("evaluating", 3), "while judging")])
def test_ctrl_c_saves_a_checkpoint_and_resume_goes_on(config, tmp_path, moment, said):
    """To the very weights and scores of a sweep that was not stopped."""

    def press(report):
        if (report.phase, report.step) == moment:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=rf"stopped {said}; a checkpoint is saved"):
        sweep(config, ["training.lr=1e-3,1e-4"], tmp_path / "out", progress=press)
    assert not (tmp_path / "out/learners").exists()
    assert not (tmp_path / "out/sweep.json").exists()
    with pytest.raises(RunError, match="go on with `resume=True`"):
        sweep(config, ["training.lr=1e-3,1e-4"], tmp_path / "out")
    parts = sweep(None, (), tmp_path / "out", resume=True)
    whole = sweep(config, ["training.lr=1e-3,1e-4"], tmp_path / "whole")
    for one, other in zip(by_number(parts), by_number(whole), strict=True):
        assert one.curve == other.curve
        assert one.val_loss == other.val_loss
        names = [tmp_path / name / f"learners/{one.number:03d}" for name in ("out", "whole")]
        assert all(torch.equal(value, weights(names[1])[name]) for name, value in weights(names[0]).items())
    assert not (tmp_path / "out/checkpoints").exists()
    with pytest.raises(RunError, match="finished already"):
        sweep(None, (), tmp_path / "out", resume=True)


def test_damaged_videos_are_listed(config, videos, tmp_path):
    shutil.copytree(videos, tmp_path / "v")
    (tmp_path / "v/bright/0 video.mp4").write_bytes(b"nothing")
    config = replace(config, data={"path": str(tmp_path / "v"), "max_damaged_share": 0.5}, training={"steps": 8})
    for seed in range(20):  # the broken one among the training videos
        result = sweep(replace(config, training={"seed": seed}), ["training.lr=1e-3,1e-4"], tmp_path / str(seed))
        if result.damaged:
            break
    assert "0 video.mp4" in (tmp_path / str(seed) / "damaged.csv").read_text()
    refused = replace(config, data={"max_damaged_share": 0}, training={"seed": seed})
    with pytest.raises(RunError, match="damaged"):
        sweep(refused, ["training.lr=1e-3,1e-4"], tmp_path / "refused")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["clip.stride=1,2"], "clip.stride cannot vary in a sweep, because all learners learn from the same clips"),
        (["training.batch_size=4,8"], "all learners take the same steps on the same batches"),
        (["evaluation.num_clips=1,3"], "judged by the same views"),
        (["backbone.name=a,b"], "read the same features"),
        (["training.lrr=1,2"], "no setting 'training.lrr'; did you mean lr"),
        (["modle.taps=[1],[2]"], "no section 'modle'; did you mean model"),
        (["training.lr"], "expected section.field=value"),
        (["training.lr=1e-3,1e-4", "training.lr=1"], "given twice"),
        (["training.lr=1e-3,1e-3"], "a value is given twice: lr=1e-3 and lr=1e-3 are the same learner"),
        (["training.lr=1e-3,1e-03"], "a value is given twice"),
        (
            ["training.lr=1e-3,1e-4", "training.seed=0,1,1.0"],
            "lr=1e-3 seed=1 and lr=1e-3 seed=1.0 are the same learner",
        ),
        (["training.lr=1e-3,"], "nothing before or after"),
        (["training.lr=1e-3,-1"], "the learner lr=-1: training.lr"),
        (["model.decoder=evl,zero_shot"], "nothing to train"),
        (["model.decoder=evl,linear", "model.probe_blocks=1"], "probe_blocks is the attentive probe's"),
    ],
)
def test_what_cannot_be_swept(config, grid, message, tmp_path):
    with pytest.raises(ConfigError, match=None) as problem:
        sweep(config, grid, tmp_path / "out")
    assert message in str(problem.value)
    assert not (tmp_path / "out").exists()


def test_other_refusals(config, store, tmp_path, monkeypatch):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    with pytest.raises(RunError, match="choose another `out`"):
        sweep(config, ["training.lr=1,2"], tmp_path / "used")
    on_store = replace(config, data={"path": None, "features": str(store)})
    with pytest.raises(StoreError, match="block 1"):
        sweep(on_store, ["model.taps=[5],[1,5]"], tmp_path / "out")
    with pytest.raises(StoreError, match=r"clip\.stride"):
        sweep(replace(on_store, clip={"stride": 1}), ["training.lr=1,2"], tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 10**6))
    with pytest.raises(RunError, match="2 learners take"):
        sweep(config, ["training.lr=1,2"], tmp_path / "out")
    with pytest.raises(ConfigError, match="no videos"):
        sweep(RunConfig(), ["training.lr=1,2"], tmp_path / "out")


def test_commas():
    assert split_values("1e-4,3e-4") == ["1e-4", "3e-4"]
    assert split_values("[3,6,9],last 4") == ["[3,6,9]", "last 4"]
    assert split_values("['a, {}.', \"b\"],['c']") == ["['a, {}.', \"b\"]", "['c']"]
    points = expand(RunConfig(), ["model.taps=[3,6],all", "training.warmup_steps=0,5", "training.steps=9"]).points
    assert [point.name for point in points] == [
        f"taps={taps} warmup_steps={warmup}" for taps in ("[3,6]", "all") for warmup in (0, 5)
    ]
    assert points[0].config.model.taps == (3, 6)
    assert points[3].config.training.warmup_steps == 5
    assert {point.config.training.steps for point in points} == {9}
