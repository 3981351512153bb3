"""How long a run takes, told from its first steps."""

import logging

import pytest

import evl
from evl.config import RunConfig, replace
from evl.errors import ConfigError
from evl.training import Progress, RunTime
from evl.training.pace import LONGEST_MEASUREMENT, Pace, log_run_time, run_time
from tests.helpers import run_command


def config(**training):
    return replace(RunConfig(), training={"steps": 1000, "eval_every": 300, "batch_size": 10, **training})


def test_evaluations_are_reckoned_as_training_clips():
    found = run_time(config(), 2.0, num_val=50)  # 0.2 s a clip
    assert found == RunTime(1000, 2.0, 3, 10.0, 30.0)
    assert found.seconds == 2000 + 3 * 10 + 30
    assert found.sentence == (
        "the run takes about 34.3 minutes: 1000 steps of 2 s, 3 evaluations in between (each 10 seconds), "
        "the last evaluation (30 seconds)"
    )
    stored = replace(config(), data={"features": "store"})
    assert run_time(stored, 2.0, num_val=50).seconds == 2000 + 3 * 30 + 30  # by all views each time
    assert run_time(config(eval_every=0), 2.0, 50).num_evaluations == 0
    assert run_time(config(), 2.0, 0) == RunTime(1000, 2.0)
    assert run_time(config(), 2.0, 50, first=600) == RunTime(400, 2.0, 1, 10.0, 30.0)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def tell(seconds_of, *, steps=1000, until=200, first=0, evaluations=()):
    """(step at which it was told, the RunTime) where step n ends after ``seconds_of(n)``."""
    clock, told, passed = Clock(), [], []
    pace = Pace(config(steps=steps), 50, passed.append, lambda found: told.append(found), clock)
    for step in range(first + 1, first + until + 1):
        clock.now += seconds_of(step)
        report = Progress("training", step, steps, "", first)
        pace(report)
        assert passed[-1] is report
        if told:
            return step, told[0]
        if step in evaluations:
            clock.now += 100
            pace(Progress("evaluating", 50, 50))
    return None


def test_starting_up_is_not_extrapolated():
    step, found = tell(lambda n: 40.0 if n == 1 else 1.0)
    assert step <= 12
    assert found.seconds_per_step == pytest.approx(1.0)


def test_evaluations_between_the_first_steps_are_no_steps():
    _, found = tell(lambda n: 1.0, evaluations=(2, 4))
    assert found.seconds_per_step == pytest.approx(1.0)


def test_a_resumed_run_counts_what_is_left():
    _, found = tell(lambda n: 1.0, first=600)
    assert (found.num_steps, found.num_evaluations) == (400, 1)


def test_speeds_that_never_agree_are_taken_after_a_minute():
    step, found = tell(lambda n: 20.0)
    assert 20.0 * (step - 1) >= LONGEST_MEASUREMENT
    assert step <= 5
    assert found.seconds_per_step == pytest.approx(20)


def test_a_run_that_is_over_tells_nothing():
    assert tell(lambda n: 0.01, steps=200) is None


def test_short_runs_do_not_say_it(caplog):
    caplog.set_level(logging.INFO, "evl")
    log_run_time(RunTime(10, 0.1))
    assert not caplog.records
    log_run_time(RunTime(1000, 0.1))
    assert "about 100 seconds" in caplog.text


def test_an_estimate_writes_nothing(tiny_config, tmp_path, capsys, monkeypatch):
    long = replace(tiny_config, training={"steps": 100_000, "eval_every": 0})
    (tmp_path / "config.yaml").write_text(long.to_yaml())
    monkeypatch.setattr("evl.runtime.progress.FIRST_SECONDS", 0.3)
    monkeypatch.setattr("evl.runtime.progress.AGREE", 10)
    arguments = ("train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run", "--estimate")
    code, out, said = run_command(capsys, *arguments)
    assert code == 0, said
    assert "the run takes about" in out
    assert "100000 steps of" in out
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    # a run that is shorter than the measurement is measured whole
    found = evl.estimate_training(replace(tiny_config, training={"steps": 2}))
    assert (found.num_steps, found.measured) == (2, True)
    code, _, said = run_command(capsys, *arguments, "--shots", "1,2")
    assert code == 2
    assert "--estimate is of one new run" in said
    monkeypatch.setattr("evl.api.training.join_world", lambda device: _world())
    with pytest.raises(ConfigError, match="torchrun"):
        evl.estimate_training(long)


def _world():
    from contextlib import nullcontext

    from evl.runtime.distributed import World

    return nullcontext(World(0, 2, "cpu"))
