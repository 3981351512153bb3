"""The command line as a user meets it: outputs, one-sentence errors, exit codes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import partial

import pytest

import evl
from evl.cli.common import spread_set
from evl.data.manifests.manifest import read_manifest
from tests.helpers import numbered_frames, run_command, write_audio, write_video


@pytest.fixture
def run(capsys):
    return partial(run_command, capsys)


def one_line(text):
    return " ".join(text.split())


def test_set_takes_several():
    assert spread_set(["train", "--set", "a.b=1", "c.d=2", "--out", "x", "e.f=3"]) == [
        "train", "--set", "a.b=1", "--set", "c.d=2", "--out", "x", "e.f=3",
    ]  # fmt: skip
    assert spread_set(["--set", "a.b=1", "lr=5"]) == ["--set", "a.b=1", "--set", "lr=5"]
    assert spread_set(["--set", "a.b=1", "a/file=1"]) == ["--set", "a.b=1", "a/file=1"]
    assert spread_set(["--set", "a.b=1", "file"]) == ["--set", "a.b=1", "file"]


def test_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "check", "prepare", "train", "evaluate", "predict", "backbones"):
        assert command in out
        code, text, _ = run(command, "--help")
        assert code == 0
        assert "Usage" in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has none")
@pytest.mark.parametrize("arguments", [("--version",), ("backbones", "tiny"), ("backbones", "tiny", "--json")])
def test_a_full_disk_behind_stdout(run, monkeypatch, arguments):
    """Also where so little is printed that Python would write it only after the exit code."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        code, _, err = run(*arguments)
        monkeypatch.undo()
        assert full.closed  # so that Python does not try it again
    assert code == 1
    assert re.fullmatch(r"error: (stdout cannot be written|cannot read or write): no space left on device\n", err)


def test_predict_json_is_one_document(run, finished_run, videos):
    files = sorted((videos / "dark").glob("*.mp4"))[:2]
    code, out, _ = run("predict", finished_run, *files, "--json")
    document = json.loads(out)
    assert code == 0
    assert [p["class"] for p in document["predictions"]] == ["dark", "dark"]
    assert [p["path"] for p in document["predictions"]] == [str(file) for file in files]
    assert sum(document["predictions"][0]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert document["failed"] == []
    assert "2x1 views" in document["protocol"]


def test_predict_table_and_failures(run, finished_run, videos, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    good = next((videos / "bright").glob("*.mp4"))
    code, out, err = run("predict", finished_run, good, tmp_path / "text.mp4", tmp_path / "missing.mp4")
    assert code == 1
    assert "bright" in out
    assert "text.mp4: cannot be decoded" in err
    assert "missing.mp4: no such file" in err
    code, out, _ = run("predict", finished_run, tmp_path / "missing.mp4", "--json")
    assert code == 1
    assert json.loads(out)["failed"][0]["error"] == "no such file"
    code, _, err = run("predict", finished_run, tmp_path / "nothing")
    assert code == 1
    code, out, _ = run("predict", finished_run, videos)  # folders too
    assert code == 0
    assert out.count(".mp4") >= 1


@pytest.mark.usefixtures("real_pictures")
def test_evaluate(run, finished_run, videos, tmp_path):
    code, out, err = run("evaluate", finished_run, "--data", videos, "--out", tmp_path / "judged", "--workers", 0)
    assert code == 0
    assert "top-1 100.00 %" in out
    assert "top-5" not in out  # of two classes
    assert "top5" not in json.loads((tmp_path / "judged/metrics.json").read_text())
    assert "3x2 frames, 2x1 views, 32px" in one_line(out)
    assert "12 videos" in one_line(out)
    assert "8 of these 12 videos were trained on" in one_line(err)
    assert (tmp_path / "judged/confusion.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(
        "evaluate", finished_run, "--json", "--clips", 1, "--crops", 3, "--out", tmp_path / "j", "--workers", 0
    )
    document = json.loads(out)
    assert (code, document["num_videos"], document["top1"]) == (0, 4, 100.0)
    assert "1x3 views" in document["protocol"]


def test_evaluate_with_damage_is_not_a_success(run, finished_run, videos, tmp_path):
    (tmp_path / "d/dark").mkdir(parents=True)
    (tmp_path / "d/dark/bad.mp4").write_bytes(b"")
    (tmp_path / "d/dark/good.mp4").write_bytes(next((videos / "dark").glob("*.mp4")).read_bytes())
    code, out, _ = run(
        "evaluate", finished_run, "--data", tmp_path / "d", "--json", "--out", tmp_path / "o", "--workers", 0
    )
    document = json.loads(out)
    assert code == 1
    assert document["num_videos"] == 1
    assert list(document["damaged"].values()) == ["is empty (0 bytes)"]


def test_check(run, videos, tmp_path):
    code, out, _ = run("check", videos)
    assert code == 0
    assert "12 good" in out
    assert "bright" in out
    folder = tmp_path / "mixed"
    (folder / "train/a").mkdir(parents=True)
    (folder / "val/b").mkdir(parents=True)
    write_video(folder / "train/a/good.mp4", numbered_frames(20))
    (folder / "val/b/same.mp4").write_bytes((folder / "train/a/good.mp4").read_bytes())
    (folder / "train/a/cut.mp4").write_bytes((folder / "train/a/good.mp4").read_bytes()[:2000])
    write_audio(folder / "val/b/sound.m4a")
    (folder / "val/b/sound.m4a").rename(folder / "val/b/sound.mp4")
    (folder / "val/b/notes.txt").write_text("x")
    code, out, _ = run("check", folder, "--json", "--manifest", tmp_path / "clean.csv")
    report = json.loads(out)
    assert code == 1
    assert (report["num_good"], report["num_damaged"]) == (2, 2)
    assert report["classes"] == {"a": {"good": 1, "damaged": 1}, "b": {"good": 1, "damaged": 1}}
    assert len(report["duplicates"]) == 1
    assert len(report["ignored"]) == 1
    clean = read_manifest(tmp_path / "clean.csv")
    assert {split: len(samples) for split, samples in clean.splits.items()} == {"train": 1, "val": 1}
    code, out, _ = run("check", tmp_path / "clean.csv")
    assert code == 0
    code, out, _ = run("check", folder)
    assert "only audio" in one_line(out)
    assert "ignored: 1 other file, such as" in one_line(out)
    flat = tmp_path / "flat"
    flat.mkdir()
    write_video(flat / "a.mp4", numbered_frames(3))
    assert run("check", flat)[0] == 0
    code, _, err = run("check", flat, "--manifest", tmp_path / "x.csv")
    assert code == 1
    assert "needs labels" in err


WRONG_SETTINGS = {
    "no recipe named 'k400'", "did you mean steps?", "valid integer", "leave out --data", "expected a config.yaml",
    "no device named 'gpu'", "no videos: give --data", "expected 1 or 3", "did you mean training.lr?",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check", "{tmp}/none"], "no such manifest or folder; expected a folder of videos, or a list"),
        (["train", "--data", "{tmp}/none", "--out", "{tmp}/r"], "correct the path, which counts from the folder"),
        (["check", "{tmp}/half"], "put each video into a folder that has the name of its class: "),
        (["predict", "{run}", "{tmp}/none"], "none: no such file expected videos, folders of them, or lists; correct"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--backbone", "vit_bas_patch16_224"], "did you mean"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--backbone", "{tmp}/no.pt"], "no such weights file"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--recipe", "k400"], "no recipe named 'k400'"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--set", "training.stepz=1"], "did you mean steps?"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--set", "training.steps=many"], "valid integer"),
        (["train", "--out", "{tmp}/r", "--resume"], "no run to resume"),
        (["train", "--out", "{run}", "--resume", "--data", "{videos}"], "leave out --data"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--config", "{tmp}"], "expected a config.yaml"),
        (["predict", "{run}", "x.mp4", "--device", "gpu"], "no device named 'gpu'"),
        (["evaluate", "{run}", "--data", "{empty}", "--workers", "0"], "not one of 1 videos could be read"),
        (["evaluate", "{run}", "--split", "test"], "has the splits train and val"),
        (["train", "--out", "{tmp}/r"], "no videos: give --data"),
        (["evaluate", "{tmp}/none"], "no saved model here (no such folder); expected the folder of a finished run"),
        (["evaluate", "{run}", "--data", "{other}"], "has the label 'jump'"),
        (["evaluate", "{run}", "--crops", "2"], "expected 1 or 3"),
        (["predict", "{tmp}", "x.mp4"], "no saved model here"),
        (["predict", "{half}", "x.mp4"], "this run is not finished; go on with: evl train --out"),
        (["backbones", "swin"], "no backbone that works here has 'swin'"),
        (["train", "--data", "{videos}", "--out", "{tmp}/r", "--set", "lr=5"], "did you mean training.lr?"),
    ],
)
def test_errors_are_one_sentence(run, arguments, sentence, tmp_path, videos, finished_run):
    (tmp_path / "other/jump").mkdir(parents=True)
    (tmp_path / "other/jump/a.mp4").write_bytes(b"")
    (tmp_path / "empty/dark").mkdir(parents=True)
    (tmp_path / "empty/dark/a.mp4").write_bytes(b"")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.yaml").write_text("")
    names = {
        "half": tmp_path / "half",
        "empty": tmp_path / "empty",
        "tmp": tmp_path,
        "videos": videos,
        "run": finished_run,
        "other": tmp_path / "other",
    }
    code, out, err = run(*(argument.format(**names) for argument in arguments))
    assert code == (2 if sentence in WRONG_SETTINGS else 1)
    assert out == ""
    assert sentence in one_line(err)
    assert "Traceback" not in err
    assert not (tmp_path / "r").exists()


def test_wrong_usage_exits_with_two(run):
    assert run("train")[0] == 2
    assert run("nonsense")[0] == 2


def test_version(run):
    code, out, _ = run("--version")
    assert (code, out) == (0, f"evl {evl.__version__}\n")


def test_backbones_lists_names(run):
    code, out, _ = run("backbones", "clip_quickgelu_224.openai", "--json")
    assert code == 0
    assert {entry["name"] for entry in json.loads(out)} >= {"vit_base_patch16_clip_quickgelu_224.openai"}
    assert "vit_base_patch16_clip_quickgelu_224.openai" in run("backbones", "*16_clip_quickgelu_224.openai")[1]


def test_train_from_the_command_line(run, videos, tmp_path):
    settings = ["training.steps=4", "training.batch_size=2", "clip.num_frames=2", "clip.stride=2", "data.num_workers=0",
                "model.taps=last 1", "backbone.image_size=16", "evaluation.num_clips=1"]  # fmt: skip
    code, out, err = run("train", "--data", videos, "--out", tmp_path / "r", "--set", *settings)
    assert code == 0, err
    assert "very small, made for first steps" in one_line(err)
    assert "top-1" in out
    assert (tmp_path / "r/model.json").exists()
    assert run("train", "--out", tmp_path / "r", "--resume")[0] == 0  # nothing left to do, and says so
    code, _, err = run("train", "--data", videos, "--out", tmp_path / "r")
    assert (code, "go on with --resume" in one_line(err)) == (1, True)


def test_import_is_fast_and_touches_nothing(tmp_path):
    code = (
        "import sys, evl\n"
        "heavy = {'torch', 'timm', 'av', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'EVLDecoder' in dir(evl)\n"
        "assert len(evl.__all__) <= 45, len(evl.__all__)\n"
        "import evl.cli.main\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_closed_stdout_is_told(capsys, monkeypatch):
    """As by a shell's ``>&-``: the module can be imported, and the command says why it ends."""
    monkeypatch.setattr(sys, "stdout", None)
    module = importlib.util.find_spec("evl.cli.common")
    module.loader.exec_module(importlib.util.module_from_spec(module))
    code, _, err = run_command(capsys, "--version")
    assert (code, one_line(err)) == (
        1,
        "error: stdout is closed, and results are written to it; send it to a file, or to /dev/null",
    )


def test_public_names_exist():
    import evl

    for name in evl.__all__:
        assert getattr(evl, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        evl.nothing  # noqa: B018


@pytest.mark.slow
def test_demo_reaches_its_promise(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "evl", "demo", "--out", tmp_path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = tmp_path.iterdir()
    top1 = {
        name: json.loads((folder / f"{name}-motion/metrics.json").read_text())["top1"]
        for name in ("evl", "side-network", "linear-probe", "evl-untrained-backbone")
    }
    assert top1.pop("side-network") > 5 + top1["evl"]
    assert top1.pop("evl") > 10 + max(top1.values())
    assert (folder / "report.html").stat().st_size > 100_000
    assert "the best for motion is the side network" in one_line(done.stdout)


def test_scores_are_shown_even_if_they_cannot_be_written(run, finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("evaluate", finished_run, "--out", tmp_path / "file/x", "--workers", 0, "--json")
    assert code == 1
    assert json.loads(out)["top1"] == 100
    assert "could not be written" in one_line(err)


def test_trained_on_is_seen_through_dots(run, finished_run, videos, tmp_path):
    dotted = videos / "dark" / ".." / ".." / videos.name
    _, _, err = run("evaluate", finished_run, "--data", dotted, "--out", tmp_path, "--workers", 0, "--clips", 1)
    assert "8 of these 12 videos were trained on" in one_line(err)


def test_a_published_layout_is_checked_and_judged(run, finished_run, videos, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classInd.txt").write_text("1 dark\n2 bright\n")
    (tmp_path / "lists/trainlist01.txt").write_text("dark/0 video.avi 1\ndark/gone.avi 1\n")
    (tmp_path / "lists/testlist01.txt").write_text("bright/1 video.avi\n")
    (tmp_path / "lists/testlist02.txt").write_text("bright/1 video.avi\nbright/gone.avi\ndark/2 video.avi\n")
    options = ("--root", videos, "--split-number")
    code, out, _ = run("check", tmp_path, *options, 1, "--json")
    assert code == 1
    document = json.loads(out)
    assert [file["path"] for file in document["files"] if "problem" not in file] == [
        str(videos / "dark/0 video.mp4"), str(videos / "bright/1 video.mp4"),
    ]  # fmt: skip
    assert [file["problem"] for file in document["files"] if "problem" in file] == ["no such file"]
    code, out, err = run("evaluate", finished_run, "--data", tmp_path, *options, 2, "--out", tmp_path / "out")
    assert code == 1
    assert "top-1 100.00 %" in out
    assert "gone.avi: no such file" in err
    for command in (("check", tmp_path), ("evaluate", finished_run, "--data", tmp_path, "--layout", "ucf101")):
        code, _, err = run(*command)
        assert code != 0
        assert "videos are missing, such as" in err
        assert "--root" in err
    code, _, err = run("check", videos, "--layout", "hmdb51")
    assert code != 0
    assert "CLASS_test_split1.txt" in err


@pytest.mark.parametrize(("stop", "wanted"), [(KeyboardInterrupt(), "stopped"), (KeyboardInterrupt("[a] b"), "[a] b")])
def test_every_command_says_that_it_was_stopped(capsys, monkeypatch, tmp_path, stop, wanted):
    def stopping(*_, **__):
        raise stop

    monkeypatch.setattr("evl.api.training.config_for", stopping)
    code, text, messages = run_command(capsys, "train", "--data", tmp_path, "--out", tmp_path / "run", "--shots", "1")
    assert (code, text, messages.strip()) == (130, "", wanted)
