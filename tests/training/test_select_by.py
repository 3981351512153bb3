"""training.select_by: which step is best/, which learner a sweep chooses; never one without a number."""

import json
import logging

import pytest
from safetensors.torch import load_file

import evl
from evl.config import replace
from evl.errors import ConfigError, DataError, RunError
from evl.evaluation import METRICS
from evl.training import train
from evl.training.run_folder import RunFolder
from evl.training.sweeps.sweep import sweep
from tests.evaluation import own_metrics

OWN = "tests.evaluation.own_metrics:"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Metrics that count their calls begin anew."""
    for metric in (own_metrics.falling, own_metrics.later, own_metrics.breaks):
        monkeypatch.setattr(metric, "calls", 0, raising=False)


def by(config, name, **training):
    own = (OWN + name,) if hasattr(own_metrics, name) and name not in METRICS else ()
    return replace(config, training={"select_by": name, **training}, evaluation={"metrics": own})


def validations(run, name):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[f"val_{name}"] for line in lines if f"val_{name}" in line}


@pytest.mark.parametrize(("name", "better"), [("top1", max), ("loss", min), ("macro_f1", max)])
def test_the_best_step_is_kept_and_said(tiny_config, tmp_path, name, better):
    config = by(tiny_config, name, steps=8, eval_every=2)
    result = train(config, tmp_path / "run")
    found = validations(tmp_path / "run", name)
    assert list(found) == [2, 4, 6, 8]
    step = next(step for step, value in found.items() if value == better(found.values()))  # the first of equals
    title = {"top1": "top-1", "macro_f1": "macro F1"}.get(name, name)
    said = f"step {step}, the best by {title} of these videos"
    scores = evl.load(tmp_path / "run/best").card.scores
    assert scores[name] == found[step]
    assert scores["protocol"].endswith(f", {said}")
    assert result.outcome.selected == f"best/ is {said}"
    assert f"; best/ is {said}" in result.outcome.sentence
    assert json.loads((tmp_path / "run/metrics.json").read_text())["outcome"]["selected"] == result.outcome.selected
    assert "best" not in evl.load(tmp_path / "run").card.scores["protocol"]  # of the last step, which nothing chose


def test_a_resumed_run_keeps_the_best_of_before(tiny_config, tmp_path):
    """The second validation is worse: best/ stays, and what is said of it."""

    class Enough(Exception):
        pass

    def stop(progress):
        if (progress.phase, progress.step) == ("training", 5):
            raise Enough

    config = by(tiny_config, "falling")
    with pytest.raises(Enough):
        train(config, tmp_path / "run", progress=stop)
    before = load_file(tmp_path / "run/best/model.safetensors")
    result = train(None, tmp_path / "run", resume=True)
    assert list(validations(tmp_path / "run", "falling")) == [3, 6]
    assert result.outcome.selected == "best/ is step 3, the best by falling of these videos"
    after = load_file(tmp_path / "run/best/model.safetensors")
    assert all((after[name] == value).all() for name, value in before.items())
    with pytest.raises(ConfigError, match=r"select_by cannot change when a run goes on \('falling' → 'loss'\)"):
        train(None, tmp_path / "run", resume=True, settings=("training.select_by=loss",))


def test_a_step_without_a_number_is_not_the_best(tiny_config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "evl"):
        result = train(by(tiny_config, "later"), tmp_path / "run")
    assert validations(tmp_path / "run", "later") == {3: None, 6: 1.0}
    assert "step 3 cannot be best/: it has no later" in caplog.text
    assert "step 6" in result.outcome.selected
    result = train(by(tiny_config, "nothing"), tmp_path / "none")
    assert result.outcome.selected is None
    assert not (tmp_path / "none/best").exists()
    assert result.evaluation.to_dict()["nothing"] is None


def test_a_metric_that_breaks_while_training_does_not_end_it(tiny_config, tmp_path, caplog):
    """The model is saved first; then the run ends in an error, because what was asked for was not done."""
    said = "the metric breaks failed on 4 videos: ZeroDivisionError: nothing was predicted"
    with pytest.raises(RunError, match=f"it has no score: {said}"):
        train(by(tiny_config, "breaks"), tmp_path / "run")
    assert f"the validation of step 3 has no score: {said}" in caplog.text
    assert evl.load(tmp_path / "run").card.scores is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("top_1", "did you mean top1"), ("top5", "says nothing of 2 classes"), ("fails", "the metric fails failed")],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(tiny_config, tmp_path, name, message):
    for start in (train, lambda config, out: sweep(config, ["training.lr=1e-3,1e-4"], out)):
        with pytest.raises((ConfigError, DataError), match=message):
            start(by(tiny_config, name), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_sweep_chooses_by_it(tiny_config, tmp_path):
    grid = ["training.lr=1e-2,1e-5,1e-3"]
    result = sweep(by(tiny_config, "loss"), grid, tmp_path / "out")
    losses = [learner.val_loss for learner in result.ranked]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    told = json.loads((tmp_path / "out/sweep.json").read_text())
    assert told["chosen_by"].startswith("val loss; ")
    assert told["overlapping_with_chosen"] is None  # it has no interval
    assert f"the chosen learner's {losses[0]:.4g} is optimistic" in told["verdict"]
    assert "; chosen of 3 learners by val loss" in told["outcome"]["sentence"]
    protocol = evl.load(tmp_path / "out/best").card.scores["protocol"]
    assert protocol.endswith(", chosen of 3 learners by val loss")
    # the same learners by top-1, which the default is
    again = sweep(tiny_config, grid, tmp_path / "top1")
    assert [learner.val_loss for learner in sorted(again.ranked, key=lambda learner: learner.number)] == [
        learner.val_loss for learner in sorted(result.ranked, key=lambda learner: learner.number)
    ]
    ranks = [(-learner.evaluation.metrics.top1, learner.val_loss) for learner in again.ranked]
    assert ranks == sorted(ranks)


def test_a_head_without_a_number_is_never_chosen(tiny_config, tmp_path, caplog):
    """Own metrics are in its tables, as empty fields where they have no number."""
    config = by(tiny_config, "undecided", steps=12)
    with caplog.at_level(logging.WARNING, "evl"):
        result = sweep(config, ["training.lr=1e-7,1e-2"], tmp_path / "out")
    assert result.best.number == 1
    assert "learners without a number for val undecided, which cannot be chosen: 0" in caplog.text
    assert [row["val_undecided"] for row in result.rows] == [1.0, None]
    with pytest.raises(RunError, match="none was chosen: no learner has a number for undecided"):
        sweep(config, ["training.lr=1e-7,1e-8"], tmp_path / "none")
    assert RunFolder(tmp_path / "none/learners/000").exists
