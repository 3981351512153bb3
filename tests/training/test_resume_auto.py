"""One command that begins a run or goes on with it, alone in its folder, after whatever death."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

import evl
from evl.config import replace
from evl.errors import ConfigError, FinishedError, RunError
from evl.runtime.out_folder import LOCK
from evl.training import train
from evl.training.loop import Interrupted
from evl.training.run_folder import RunFolder
from evl.training.work_folder import WorkFolder
from evl.types import Sample
from tests.runtime.deaths import each_death

GRID = ("training.lr=1e-3,1e-4",)


def stop_at(step):
    def stop(report):
        if (report.phase, report.step) == ("training", step):
            raise KeyboardInterrupt

    return stop


def same_weights(one, other):
    one, other = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_begins_goes_on_and_ends_with_the_same_bits(tiny_config, tmp_path, videos, monkeypatch):
    monkeypatch.chdir(videos.parent)
    tiny_config = replace(tiny_config, training={"eval_every": 0, "steps": 4})
    config = replace(tiny_config, data={"path": videos.name})  # a relative path is that of the run too
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", resume="auto", progress=stop_at(3))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_0000002.pt"]
    steps = []
    more = replace(config, training={"log_every": 1, "keep_last": 1})  # these may change
    train(more, tmp_path / "run", resume="auto", progress=lambda report: steps.append((report.phase, report.step)))
    assert [step for phase, step in steps if phase == "training"] == [3, 4]
    train(tiny_config, tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert not (tmp_path / "run" / LOCK).exists()
    evl.train(out=tmp_path / "run", resume="auto", progress=False)  # finished, and nothing to compare
    assert same_weights(tmp_path / "run", tmp_path / "whole")

    other = replace(tiny_config, training={"lr": 5e-3, "seed": 3, "steps": 5}, data={"path": "elsewhere"})
    sentence = r"data\.path, training\.steps, training\.lr, training\.seed cannot change when a run goes on.*0\.001 → "
    with pytest.raises(ConfigError, match=sentence):
        train(other, tmp_path / "run", resume="auto")


def test_steps_that_are_counted_are_the_same_steps(tiny_config, tmp_path):
    config = replace(tiny_config, training={"steps": None, "save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", resume="auto", progress=stop_at(3))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", resume="auto", progress=stop_at(4))
    with pytest.raises(ConfigError, match=r"training\.steps cannot change"):
        train(tiny_config, tmp_path / "run", resume="auto")


def test_what_cannot_be_asked_for(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match='expected True, False or "auto"'):
        evl.train(tiny_config, tmp_path / "run", resume="always")
    with pytest.raises(ConfigError, match="give `data`"):
        evl.train(out=tmp_path / "run", resume="auto", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train.csv").write_text("mine")
    with pytest.raises(RunError, match="not empty; choose another"):
        train(tiny_config, tmp_path / "mine", resume="auto")
    assert os.listdir(tmp_path) == ["mine"]


def test_beside_a_living_run_nothing_goes_on(tiny_config, tmp_path):
    problems = []

    def intrude(report):
        for resume in (True, "auto", False):
            with pytest.raises(RunError) as error:
                train(None if resume is True else tiny_config, tmp_path / "run", resume=resume)
            problems.append(str(error.value))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, tmp_path / "run", progress=intrude)
    assert len(problems) == 3
    assert all(f"process {os.getpid()} on" in problem for problem in problems[:2])


@pytest.mark.slow
def test_a_run_that_dies_while_its_folder_is_begun_is_begun_again(tiny_config, tmp_path, monkeypatch):
    """At every moment of it; what is there then is what an undisturbed one makes."""
    monkeypatch.setattr("evl.training.run_folder.environment", dict)
    out, samples = tmp_path / "run", (Sample("a.mp4", "bright"), Sample("b.mp4", "dark"))

    def begin(missing=None):
        folder = RunFolder(out)
        with folder.held("auto") as goes_on:
            if not goes_on:
                folder.create(tiny_config, ("bright", "dark"), samples, samples, missing or {})
            return goes_on

    found = []
    for _ in each_death(lambda: begin({"train": samples})):
        begun = (out / "config.yaml").exists()
        found.append(begun)
        assert begin() == begun
        more = ["missing.csv"] if begun else []  # of the first command; the second one misses nothing
        expected = ["class_names.txt", "config.yaml", "environment.json", *more, "train.csv", "val.csv"]
        assert sorted(os.listdir(out)) == expected
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    assert found == sorted(found)
    assert found.count(False) > found.count(True) > 0


def test_sweeps_and_few_shots_that_die_while_they_are_begun_are_begun_again(tiny_config, tmp_path):
    folder = WorkFolder(tmp_path / "sweep", "sweep.yaml", "sweep.json")

    def begin():
        with folder.held("auto") as goes_on:
            if not goes_on:
                folder.create(tiny_config, grid=list(GRID), keep_predictions=False)

    for _ in each_death(begin):
        begin()
        (file,) = folder.path.iterdir()
        file.unlink()
        folder.path.rmdir()


def test_a_sweep_goes_on_by_itself(tiny_config, tmp_path, capsys):
    from evl.cli.main import main
    from evl.training.sweeps.sweep import sweep

    config, out = replace(tiny_config, training={"eval_every": 0, "steps": 4}), tmp_path / "out"
    with pytest.raises(Interrupted):
        sweep(config, GRID, out, resume="auto", progress=stop_at(3))
    with pytest.raises(ConfigError, match=r"`grid` cannot change when a run goes on"):
        sweep(config, ("training.lr=1e-3",), out, resume="auto")
    with pytest.raises(ConfigError, match=r"training\.seed, `keep_predictions` cannot change"):
        sweep(replace(config, training={"seed": 1}), GRID, out, resume="auto", keep_predictions=True)
    sweep(config, GRID, out, resume="auto")
    (out / "checkpoints").mkdir()  # which a process that died here would have left
    with pytest.raises(FinishedError, match="finished already"):
        sweep(config, GRID, out, resume="auto")
    assert not (out / "checkpoints").exists()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = ["sweep", "--config", tmp_path / "config.yaml", "--out", out, "--set", *GRID, "--json", "--resume=auto"]
    with pytest.raises(SystemExit, match="0"):
        main([str(one) for one in command])
    assert json.loads(capsys.readouterr().out) == json.loads((out / "sweep.json").read_text())
