"""evl evaluate --timeline: what it prints and writes, and thresholds that stay with the run."""

import json
import shutil

import numpy as np
import pytest
import torch

import evl
from evl.api.timeline_judging import _Lines
from evl.errors import CheckpointError, ConfigError, DataError
from evl.evaluation.timelines.thresholds import choose_thresholds
from evl.evaluation.timelines.truth import by_video
from evl.inference.segments import SegmentRules
from evl.runtime.distributed import World
from evl.types import Sample
from tests.helpers import run_command, write_video

ROWS = """path,label,start_seconds,end_seconds,split
one.mp4,dark,0,0.8,test
one.mp4,bright,0.8,1.6,test
one.mp4,dark,1.6,2.4,test
two.mp4,bright,0.4,1.2,test
three.mp4,bright,0.8,1.6,val
three.mp4,dark,1.6,2.4,val
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Dark, bright, dark: 20 frames each at 25 per second; the manifest does not list all of it."""
    folder, generator = tmp_path_factory.mktemp("films"), np.random.default_rng(1)
    for name in ("one", "two", "three"):
        levels = np.repeat([50, 200, 50], 20)[:, None, None, None]
        frames = (levels + generator.normal(0, 20, (60, 40, 56, 3))).clip(0, 255).astype(np.uint8)
        write_video(folder / f"{name}.mp4", frames)
    (folder / "segments.csv").write_text(ROWS)
    return folder


@pytest.mark.usefixtures("real_pictures")
def test_files_and_numbers(finished_run, films, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("evaluate", finished_run, "--timeline", "--data", films / "segments.csv", "--out", out)
    code, text, _ = run_command(capsys, *command)
    assert code == 0
    for word in (
        "mAP 0.3–0.7",
        "F1@50",
        "edit score",
        "live delay",
        "2 videos, 4 events",
        "on 0.5, off 0.3",
        "written",
    ):
        assert word in text
    assert sorted(path.name for path in out.iterdir()) == [
        "classes.csv", "confusion.csv", "confusion.png", "metrics.json", "scores", "segments.csv", "tracks.png",
        "videos.csv",
    ]  # fmt: skip
    written = json.loads((out / "metrics.json").read_text())
    assert (written["num_videos"], written["num_events"], written["num_found"]) == (2, 4, 6)
    # two.mp4: dark was found twice, and is not labeled; bright was found at 0.8 to 1.6, labeled at 0.4 to 1.2
    assert written["frame_accuracy"] == pytest.approx(50, abs=8)
    assert written["edit"] == pytest.approx((100 + 100 / 3) / 2)
    assert [one["class"] for one in written["classes"]] == ["bright", "dark"]
    assert written["f1_50_interval"][0] < written["f1_50"] < written["f1_50_interval"][1]
    rows = (out / "videos.csv").read_text().splitlines()
    assert rows[0].startswith("path,seconds,events")
    assert [row.split(",")[0].rpartition("/")[2] for row in rows[1:]] == ["one.mp4", "two.mp4"]
    assert sorted(path.name for path in (out / "scores").iterdir()) == ["one.parquet", "two.parquet"]
    # the scores of windows are enough to judge again, without the model
    scores = [argument for path in (out / "scores").iterdir() for argument in ("--from", path)]
    code, text, _ = run_command(
        capsys, *("evaluate", "--timeline", "--data", films / "segments.csv"), *scores, "--json"
    )
    again = json.loads(text)
    assert code == 0
    assert {name: again[name] for name in ("map_50", "live_delay", "edit", "f1_50")} == {
        name: written[name] for name in ("map_50", "live_delay", "edit", "f1_50")
    }
    _, text, _ = run_command(capsys, *command[:-2], "--on", 1, "--off", 1, "--out", tmp_path / "other", "--json")
    assert json.loads(text)["num_found"] == 0


def test_thresholds_are_chosen_on_validation_videos_and_kept(finished_run, films, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = (run / "model.safetensors").read_bytes(), evl.load(run)
    command = ("evaluate", run, "--timeline", "--data", films / "segments.csv", "--choose-thresholds")
    code, text, message = run_command(capsys, *command)
    assert code == 0
    assert "thresholds chosen on 1 validation video of segments.csv" in " ".join(text.split())
    assert "are kept in" in " ".join(message.split())
    assert (run / "timeline/metrics.json").exists()
    model = evl.load(run)
    assert set(model.card.segment_rules["on"]) == {"bright", "dark"}
    assert model.card.scores == before[1].card.scores
    for one, other in zip(model.parameters(), before[1].parameters(), strict=True):
        assert (one == other).all()
    line = evl.timeline(run, films / "one.mp4")
    assert line.rules.on == model.card.segment_rules["on"]
    assert evl.timeline(run, films / "one.mp4", on=0.7).rules.on == 0.7
    partly = evl.timeline(run, films / "one.mp4", on={"dark": 0.99}).rules
    assert partly.on == {**line.rules.on, "dark": 0.99}
    _, _, message = run_command(capsys, "timeline", run, films / "one.mp4")
    assert "chosen on 1 validation video of segments.csv" in " ".join(message.split())
    copy = tmp_path / "copy"
    evl.export(run, copy)
    assert evl.load(copy).card.segment_rules == model.card.segment_rules
    # a card from elsewhere is not believed
    card = json.loads((run / "model.json").read_text())
    for wrong in ({"on": 2.0}, {"on": "x"}, {"smoth": 1}, {"on": {"dark": None}}):
        (run / "model.json").write_text(json.dumps(card | {"segment_rules": wrong}))
        with pytest.raises(CheckpointError, match="rules of segments"):
            evl.load(run)


def test_what_the_choice_is(finished_run, films):
    """Each class's threshold has the best mean F1 of all that were tried, by itself."""
    line = evl.timeline(finished_run, films / "three.mp4")
    generator = np.random.default_rng(0)
    scores = np.clip(line.scores + generator.normal(0, 0.25, line.scores.shape), 0, 1)
    noisy = type(line)(line.path, line.times, scores, line.frames, line.class_names,
                       start_seconds=0.0, end_seconds=line.end_seconds)  # fmt: skip
    rows = {line.path: [Sample(line.path, "bright", 0.8, 1.6)]}
    chosen = choose_thresholds([noisy], rows, SegmentRules(smooth=3))
    assert chosen.unchosen == ("dark",)
    assert chosen.rules.on["dark"] == 0.5
    assert chosen.rules.smooth == 3
    best = {}
    for level in np.arange(1, 20) / 20:
        found = noisy.with_rules(SegmentRules(on=float(level), smooth=3)).segments
        found = [one for one in found if one.label == "bright"]
        shares = [
            max(0, min(one.end_seconds, 1.6) - max(one.start_seconds, 0.8))
            / (max(one.end_seconds, 1.6) - min(one.start_seconds, 0.8)) for one in found
        ]  # fmt: skip
        best[round(float(level), 2)] = np.mean(
            [200 * (max(shares, default=0) >= share) / (len(found) + 1) for share in (0.1, 0.25, 0.5)]
        )
    assert len(set(best.values())) > 1
    assert chosen.scores["bright"] == pytest.approx(max(best.values()))
    assert best[chosen.rules.on["bright"]] == pytest.approx(max(best.values()))


def test_processes_share_the_videos(finished_run, films, monkeypatch):
    """Each makes its own timelines; tests/training/test_train.py has two real processes."""
    monkeypatch.setattr(World, "gather", lambda self, value: [value])
    rows = by_video(evl.read_manifest(films / "segments.csv").samples)
    names = []
    for rank in range(2):
        world = World(rank, 2, torch.device("cpu"))
        lines, failed = _Lines(evl.load(finished_run, device="cpu"), (), {}, {}, False, world).of(rows)
        names.append([line.path.rpartition("/")[2] for line in lines])
        assert not failed
    assert names == [["one.mp4", "two.mp4"], ["three.mp4"]] or names == [["one.mp4", "three.mp4"], ["two.mp4"]]


def test_thresholds_are_not_chosen_on_test_videos(finished_run, films, tmp_path):
    model = evl.load(finished_run)
    (films / "test.csv").write_text(ROWS.partition("three")[0])
    with pytest.raises(DataError, match="never on those of the test"):
        evl.evaluate_timelines(model, films / "test.csv", choose_thresholds=True, progress=False)
    with pytest.raises(ConfigError, match="as it was trained"):
        evl.evaluate_timelines(finished_run, films / "test.csv", choose_thresholds=True, stride=3, progress=False)
    assert model.card.segment_rules is None
    model.folder = None
    result = evl.evaluate_timelines(model, films / "segments.csv", split="val", choose_thresholds=True, progress=False)
    assert "these videos: too good a score" in result.protocol
    assert model.card.segment_rules is not None


def test_what_cannot_be_judged(finished_run, films, tmp_path, capsys):
    run_command(capsys, "timeline", finished_run, films / "one.mp4", "--out", tmp_path / "line")
    scores = tmp_path / "line/scores.parquet"
    data = ("--data", films / "segments.csv")
    for arguments in (
        ["evaluate", finished_run, *data, "--on", 0.5],
        ["evaluate", finished_run, *data, "--choose-thresholds"],
        ["evaluate", finished_run, *data, "--timeline", "--clips", 2],
        ["evaluate", "--timeline", *data],
        ["evaluate", finished_run, *data, "--timeline", "--from", scores, "--every", 1],
    ):
        assert run_command(capsys, *arguments)[0] == 2, arguments
    code, _, message = run_command(capsys, "evaluate", "--timeline", *data, "--from", scores)
    assert code == 1
    assert "two.mp4" in message
    (films / "unknown.csv").write_text("path,label,start_seconds,end_seconds\none.mp4,brigt,0,1\n")
    with pytest.raises(DataError, match="did you mean 'bright'"):
        evl.evaluate_timelines(finished_run, films / "unknown.csv", progress=False)
    (films / "late.csv").write_text("path,label,start_seconds,end_seconds\none.mp4,bright,5,6\n")
    with pytest.raises(DataError, match=r"the file ends at 2\.40 s"):
        evl.evaluate_timelines(finished_run, films / "late.csv", progress=False)
    (films / "none.csv").write_text("path,label,start_seconds,end_seconds\none.mp4,background,0,1\n")
    with pytest.raises(DataError, match="nothing to judge"):
        evl.evaluate_timelines(finished_run, films / "none.csv", progress=False)
