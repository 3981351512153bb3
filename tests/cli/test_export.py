"""evl export and evl import-release, and models used otherwise than they were trained."""

import json
import os
import shutil

import pytest
import torch

import evl
from evl.errors import RunError, SaveError
from evl.saving import VideoClassifier, save_model
from tests.helpers import GOLDEN, run_command
from tests.runtime.deaths import each_death
from tests.saving.test_saved import make

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = GOLDEN / "release_checkpoint_tiny.pth", GOLDEN / "openai_clip_tiny.pt"


@pytest.fixture
def run(capsys):
    return lambda *arguments: run_command(capsys, *map(str, arguments))


def test_a_run_travels(run, finished_run, videos, tmp_path):
    code, out, err = run("export", finished_run, "--out", tmp_path / "model", "--with-backbone")
    assert (code, out.strip()) == (0, f"exported to {tmp_path / 'model'}"), err
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.safetensors", "model.json", "README.md"}
    card = evl.load(tmp_path / "model").card
    page = (tmp_path / "model" / "README.md").read_text()
    assert card.scores["protocol"] in page
    assert "Trained on: videos" in page
    video = next(videos.rglob("*.mp4"))
    answers = [json.loads(run("predict", model, video, "--json")[1]) for model in (finished_run, tmp_path / "model")]
    assert answers[0] == answers[1]
    code, out, err = run("export", finished_run, "--out", tmp_path / "model")
    assert code == 1
    assert "is there already" in err


def test_other_sizes(run, finished_run, videos, tmp_path):
    video = next(videos.rglob("*.mp4"))
    code, out, err = run("predict", finished_run, video, "--num-frames", 5, "--image-size", "32x48", "--json")
    assert code == 0, err
    assert "5x" in json.loads(out)["protocol"]
    assert "32×48px" in json.loads(out)["protocol"]
    assert "used otherwise than it was trained" in " ".join(err.split())
    code, out, err = run("evaluate", finished_run, "--num-frames", 5, "--out", tmp_path, "--json")
    assert code == 0, err
    assert json.loads(out)["protocol"].startswith("5x")
    code, _, err = run("predict", finished_run, video, "--image-size", "big")
    assert code == 2
    assert "expected a side, such as 336, or HxW" in err


def test_import_and_export_of_a_release(run, videos, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {y}\n" for y in range(7)))
    code, out, err = run(
        "import-release", FILES[0], "--backbone", FILES[1], "--classes", names, "--out", tmp_path / "run"
    )
    assert code == 0, err
    assert "7 classes, 4 frames" in out
    video = GOLDEN / "videos/h264_landscape.mp4"
    code, out, err = run("predict", tmp_path / "run", video, "--json")
    assert json.loads(out)["predictions"][0]["class"].startswith("class ")
    (tmp_path / "list.csv").write_text(f"path,label\n{video},class 3\n")
    code, out, err = run("evaluate", tmp_path / "run", "--data", tmp_path / "list.csv", "--json")
    assert (code, json.loads(out)["num_videos"]) == (0, 1), err
    code, out, err = run("export", tmp_path / "run", "--format", "release", "--out", tmp_path / "out.pth")
    assert code == 0, err
    theirs, ours = (torch.load(path, weights_only=True)["model"] for path in (FILES[0], tmp_path / "out.pth"))
    assert all(torch.equal(ours.pop(name), value) for name, value in theirs.items())
    assert not ours
    code, _, err = run("import-release", FILES[0], "--backbone", FILES[1], "--out", tmp_path / "run")
    assert code == 1
    assert "exists already" in err
    code, _, err = run(
        "import-release", FILES[0], "--backbone", FILES[1], "--classes", "kinetics400", "--out", tmp_path / "k"
    )
    assert code == 1
    assert "7 classes, but 400 names" in err
    code, _, err = run("train", "--out", tmp_path / "run", "--resume")
    assert code == 1
    assert "--init" in err


def test_training_goes_on_from_a_saved_model(run, finished_run, videos, tmp_path):
    settings = ["--set", "clip.num_frames=5", "training.steps=2", "training.eval_every=0", "training.batch_size=4"]
    code, _, err = run("train", "--data", videos, "--out", tmp_path / "more", "--init", finished_run, *settings)
    assert code == 0, err
    assert "temporal positions are interpolated" in " ".join(err.split())
    before, after = (evl.load(path) for path in (finished_run, tmp_path / "more"))
    assert after.card.config.clip.num_frames == 5
    assert after.card.config.model == before.card.config.model  # what was not said is as it was
    change = (after.decoder.query_token - before.decoder.query_token).abs().max()
    assert change < 0.01  # two steps away, not a new start


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nowhere to export to"),
        (("--format", "release", "--out", "x", "--with-backbone"), "leave out --with-backbone"),
    ],
)
def test_errors_are_one_sentence(run, finished_run, tmp_path, arguments, sentence):
    code, _, err = run("export", finished_run, *(str(a).format(tmp=tmp_path) for a in arguments))
    assert code == 2
    assert sentence in " ".join(err.split())


def test_a_model_that_the_release_has_no_form_for(run, tmp_path):
    save_model(make(), tmp_path / "model")  # reads blocks 2 and 4
    code, _, err = run("export", tmp_path / "model", "--format", "release", "--out", tmp_path / "x.pth")
    assert code == 1
    assert "no form for this model: it reads blocks [2, 4], not the last 2 of 5" in " ".join(err.split())
    assert not (tmp_path / "x.pth").exists()


def test_an_export_that_died_is_made_again_and_two_at_once_are_refused(finished_run, tmp_path, monkeypatch):
    """Dead at any call that changes the disk, the folder is not there or it is whole; the same command makes it."""
    model, out = evl.load(finished_run), tmp_path / "doors"
    for _ in each_death(lambda: evl.export(model, out)):
        if out.exists():
            with pytest.raises(SaveError, match="is there already"):
                evl.export(model, out)
        else:
            evl.export(model, out)
        assert sorted(os.listdir(out)) == ["README.md", "model.json", "model.safetensors"]
        assert os.listdir(tmp_path) == ["doors"]
        shutil.rmtree(out)
    shutil.rmtree(out)  # of the one that did not die

    def second(*arguments, **options):
        with pytest.raises(RunError, match=f"doors: process {os.getpid()} on .* has been writing here since"):
            evl.export(model, out)
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoClassifier, "save_pretrained", second)
    with pytest.raises(KeyboardInterrupt):
        evl.export(model, out)
    assert not list(tmp_path.iterdir())
