"""The demo from its command to its report, tiny; and what it leaves behind, used as a run of one's own would be."""

import json
import logging
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

import evl
from evl.cli.demo import print_result
from evl.cli.main import main
from evl.config import RunConfig
from evl.demo import run
from evl.demo.compare import read_clips
from evl.demo.contenders import DEFAULT, FULL, Size, config_of
from evl.demo.results import EVL, LINEAR, ROWS, SIDE, SIDE_CAUSAL, UNTRAINED, ZERO_SHOT
from evl.errors import RunError
from evl.types import Sample
from tests.demo.fake import fake_result
from tests.helpers import made_once, run_command


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(what was printed, the folder, the messages) of 'evl demo --full', which is tiny here."""
    text, folder, messages = made_once(tmp_path_factory, "demo", _make_demo)
    return text, Path(folder), messages


def _make_demo(folder):
    out, messages = StringIO(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "FULL", Size(train=28, test=14, steps=3, seeds=5))
        patch.setattr(run, "default_num_workers", lambda: 0)  # processes take seconds to start
        patch.setattr(logging.getLogger("evl"), "filters", [lambda record: messages.append(record.getMessage()) or 1])
        with redirect_stdout(out), pytest.raises(SystemExit) as stop:
            main(["demo", "--full", "--seed", "3", "--seeds", "2", "--out", str(folder)])
    assert not stop.value.code
    (folder,) = folder.iterdir()
    return out.getvalue(), str(folder), messages


def rows_of(text):
    """variant -> the cells behind it, of a printed table."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 1}


def test_its_table_has_every_variant_and_chance(demo):
    rows = rows_of(demo[0])
    assert [name for name in rows if name in ROWS] == list(ROWS)
    assert rows["chance"][:2] == ["7.1 %", "12.5 %"]
    for variant in ROWS:
        for cell in rows[variant][:2]:
            assert re.fullmatch(r"\d+\.\d\s%  \(\d+\.\d–\d+\.\d\)", cell), cell
    count = {variant: int(rows[variant][2].replace(",", "")) for variant in ROWS}
    assert count[EVL] == count[UNTRAINED] > count[SIDE] == count[SIDE_CAUSAL] > count[LINEAR] > count[ZERO_SHOT] == 0
    width = evl.load(demo[1] / "evl-motion").backbone.spec.width
    assert count[LINEAR] == 2 * width + 14 * (width + 1)
    assert "t-intervals over 2 seeds" in demo[0]


def test_words_that_the_encoder_does_not_know_take_one_line(demo):
    (said,) = [message for message in demo[2] if "not know" in message]
    assert "they are in 16 class names, such as 'moving something down'" in said


def test_the_printed_command_predicts_what_was_printed(demo, capsys):
    flat = " ".join(demo[0].split())
    video, name, score = re.search(r"predicted (\S+\.mp4): (.+?) \((\d+\.\d) %\)", flat).groups()
    command = re.search(r"try evl (predict \S+ \S+)", flat)[1].split()
    code, out, _ = run_command(capsys, *command, "--json")
    assert code == 0
    (found,) = json.loads(out)["predictions"]
    assert (found["path"], found["class"]) == (video, name)
    assert 100 * max(found["scores"].values()) == pytest.approx(float(score), abs=0.06)


@pytest.mark.parametrize(
    ("name", "task"),
    [("evl-motion", "motion"), ("side-network-causal-motion", "motion"), ("evl-untrained-backbone-object", "object")],
)
def test_a_saved_run_judges_as_was_judged_in_memory(demo, name, task, capsys, tmp_path):
    folder = demo[1] / name
    where = ("--data", demo[1] / "motions" / f"{task}.csv", "--out", tmp_path, "--workers", 0)
    code, out, _ = run_command(capsys, "evaluate", folder, *where, "--json")
    assert code == 0
    first, second = (evl.read_predictions(where) for where in (folder, tmp_path))
    assert (first.paths, first.labels.tolist()) == (second.paths, second.labels.tolist())
    assert len(first) == 14
    assert first.scores == pytest.approx(second.scores, abs=3e-3)  # pixels and features had 16 bits
    told, again = json.loads((folder / "metrics.json").read_text()), json.loads(out)
    assert told["protocol"] == again["protocol"]
    assert "8 segment frames, 1x1 views" in told["protocol"]


def test_runs_say_how_they_were_trained(demo):
    for variant, steps in ((EVL, 3), (LINEAR, 15)):
        folder = demo[1] / f"{variant.lower().replace(' ', '-')}-motion"
        config = RunConfig.from_yaml(folder / "config.yaml")
        assert (config.training.steps, config.training.seed) == (steps, 3)
        assert config.data.path == str(demo[1] / "motions" / "motion.csv")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [*range(1, steps + 1), steps]
        assert "final" in lines[-1]
        assert len((folder / "train.csv").read_text().splitlines()) == 29
    assert len(list(demo[1].glob("*/model.safetensors"))) == 12  # of the first seed
    assert (demo[1] / "motions-seed-4" / "motion.csv").is_file()


def test_its_report_shows_what_was_judged_first(demo):
    page = (demo[1] / "report.html").read_text()
    assert page.count('<li class="example"') == 8
    for word in (*ROWS, "t-interval over 2 seeds", "28 to train on, 14 to judge by"):
        assert word in page


def test_three_minutes_train_less_than_the_full_demo():
    assert (DEFAULT.steps_of(SIDE), DEFAULT.steps_of(EVL), DEFAULT.steps_of(LINEAR)) == (400, 800, 4000)
    assert DEFAULT.chosen((SIDE, SIDE_CAUSAL, EVL)) == [SIDE, EVL]
    assert FULL.steps_of(SIDE) == FULL.steps_of(EVL) == 1600
    assert FULL.chosen((SIDE, SIDE_CAUSAL)) == [SIDE, SIDE_CAUSAL]


def test_one_seed_has_intervals_over_videos(capsys):
    result = fake_result()
    print_result(result)
    out = capsys.readouterr().out
    assert "Wilson's, over videos; one seed" in out
    (evl_motion,) = result.of(EVL, "motion")
    low, high = evl_motion.evaluation.metrics.top1_interval
    assert f"{evl_motion.evaluation.metrics.top1:.1f}\u00a0%  ({low:.1f}–{high:.1f})" in out


def test_a_folder_that_cannot_be_made_is_told(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run_command(capsys, "demo", "--out", tmp_path / "file")
    assert code == 1
    assert "no folder can be made here (Not a directory); choose another --out" in " ".join(err.split())


def test_a_video_that_cannot_be_read_ends_it(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    config = config_of(EVL, "motion", tmp_path, 1, 0)
    preprocessing = evl.types.Preprocessing((8, 8), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(RunError, match=r"text\.mp4: a video of the demo cannot be read"):
        read_clips([Sample(str(tmp_path / "text.mp4"))], config.clip, preprocessing, num_workers=0)


def test_examples_are_pixels_as_the_encoder_got_them(demo):
    folder = demo[1]
    data = run.Data(folder / "motions", Size(train=28, test=14, steps=3), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "default_num_workers", lambda: 0)
        data.decode(lambda description, total: lambda done, note="": None)
    model = evl.load(folder / "evl-motion")
    examples = run.make_examples(model, data)
    assert len({one.label for one in examples}) == len(examples) == 8
    saved = evl.read_predictions(folder / "evl-motion")
    predictions = {one.path: one for one in saved.predictions}
    for one in examples:
        assert one.frames.shape == (8, *model.backbone.spec.image_size, 3)
        total = torch.from_numpy(one.attention).sum((1, 2, 3)) + torch.from_numpy(one.prefix_share)
        torch.testing.assert_close(total, torch.ones(len(one.attention)), rtol=1e-4, atol=0)
        line = predictions[str(one.path)]
        assert saved.class_names[line.label] == one.label
        assert list(line.scores) == pytest.approx(list(one.scores), abs=3e-3)
        wanted = evl.read_views(
            one.path, num_frames=8, stride=1, num_clips=1, num_crops=1, size=one.frames.shape[1:3],
            mean=(0, 0, 0), std=(1, 1, 1), sampling="segment", antialias=True,
        )[0]  # fmt: skip
        got = torch.from_numpy(one.frames).movedim(-1, 1) / 255
        assert (got - wanted).abs().max() < 0.6 / 255
    assert Path(examples[0].path).name == "000000.mp4"
