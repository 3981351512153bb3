"""``--zero-shot`` of evl predict and evl evaluate."""

import json
import sys
from functools import partial

import pytest
import torch

import evl
from evl.saving import save_model
from tests import towers
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(capsys):
    return partial(run_command, capsys)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A whole CLIP with OpenAI's marks."""
    clip = towers.make({**towers.PLAIN, "quick_gelu": True})
    return towers.write(clip, tmp_path_factory.mktemp("clip"), input_resolution=torch.tensor(32))


def scores_of(out):
    return [prediction["scores"] for prediction in json.loads(out)["predictions"]]


def test_predict_needs_no_run(run, archive, videos, tmp_path):
    files = sorted((videos / "dark").glob("*.mp4"))[:2]
    command = ("predict", "--backbone", archive, "--json", "--zero-shot")
    code, out, _ = run(*command, "opening a door,  closing a door", *files)
    document = json.loads(out)
    assert code == 0
    assert [p["path"] for p in document["predictions"]] == [str(file) for file in files]
    assert "8 segment frames, 1x1 views, 32px" in document["protocol"]
    assert "zero-shot" in document["protocol"]
    model = evl.zero_shot(str(archive), ["opening a door", "closing a door"])
    for prediction, got in zip(evl.predict(model, files).predictions, scores_of(out), strict=True):
        assert got == pytest.approx(dict(zip(model.class_names, prediction.scores, strict=True)), abs=1e-5)
    (tmp_path / "names.txt").write_text("opening a door\nclosing a door\n")
    for listed in (f"@{tmp_path}/names.txt", tmp_path / "names.txt"):
        again = run(*command, listed, *files)[1]
        assert json.loads(again) == document
    code, out, _ = run(*command, "opening a door, closing a door", "--num-frames", 2, "--prompt", "{}", files[0])
    assert "2 segment frames" in json.loads(out)["protocol"]
    model = evl.zero_shot(str(archive), ["opening a door", "closing a door"], prompts=["{}"], num_frames=2)
    wanted = evl.predict(model, files[0]).predictions[0].scores
    assert scores_of(out)[0] == pytest.approx(dict(zip(model.class_names, wanted, strict=True)), abs=1e-5)


def test_a_file_with_the_whole_clip_of_a_name(run, videos, tmp_path, monkeypatch):
    file = towers.write(towers.make(towers.PLAIN), tmp_path)
    video = next(videos.rglob("*.mp4"))
    command = ("predict", "--json", "--zero-shot", "opening a door, jumping", "--backbone", "evltest_clip_32", video)
    code, out, err = run(*command, "--weights", file)
    assert code == 0, err
    model = evl.zero_shot("evltest_clip_32", ["opening a door", "jumping"], weights=file)
    wanted = evl.predict(model, video).predictions[0].scores
    assert scores_of(out)[0] == pytest.approx(dict(zip(model.class_names, wanted, strict=True)), abs=1e-5)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("evl.backbones.weights.fetch.weights_on_disk", lambda name: None)
    known = ("--backbone", "vit_base_patch16_siglip_224.webli")
    code, _, err = run("predict", "--zero-shot", "opening a door, jumping", *known, video)
    assert code == 1
    assert "timm/ViT-B-16-SigLIP/resolve/main/open_clip_model.safetensors and" in " ".join(err.split())
    assert "give --weights FOLDER/open_clip_model.safetensors" in " ".join(err.split())


def test_evaluate_takes_class_names_from_the_data(run, archive, videos, tmp_path, monkeypatch):
    command = ("evaluate", "--zero-shot", "--backbone", archive, "--data", videos, "--workers", 0, "--json")
    code, out, _ = run(*command)
    document = json.loads(out)
    assert code == 0
    assert document["num_videos"] == 12
    assert "predictions" not in document
    code, out, _ = run(*command, "--out", tmp_path / "zero")
    assert code == 0
    assert json.loads(out)["top1"] == document["top1"]
    assert (tmp_path / "zero/predictions.parquet").exists()
    # the model is there too, and needs no text tower any more
    monkeypatch.setitem(sys.modules, "open_clip", None)
    code, out, _ = run("evaluate", tmp_path / "zero", "--data", videos, "--workers", 0, "--json")
    assert code == 0
    again = json.loads(out)
    assert {**again, "predictions": None} == {**document, "predictions": None}
    code, out, _ = run("predict", tmp_path / "zero", next((videos / "dark").glob("*.mp4")), "--json")
    assert code == 0
    assert set(scores_of(out)[0]) == {"bright", "dark"}


def test_a_saved_model_is_the_same(archive, tmp_path, monkeypatch):
    model = evl.zero_shot(str(archive), ["a", "b", "c"])
    save_model(model, tmp_path)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    clips = torch.randn(2, 4, 3, 32, 32)
    loaded = evl.load(tmp_path)
    assert torch.equal(loaded(clips), model(clips))
    assert loaded.card.config.model.decoder == "zero_shot"
    assert not list(loaded.trainable_parameters())


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["predict", "{run}"], 2, "expected the folder of a run and a video"),
        (["predict", "--zero-shot", "a, b", "--weights", "x", "{videos}"], 2, "--weights goes with --backbone"),
        (["predict", "--zero-shot", "dog, qwrtz", "{videos}"], 1, "knows no word of the class name"),
        (["predict", "{run}", "{videos}", "--backbone", "x"], 2, "go with --zero-shot"),
        (["predict", "--zero-shot", "a", "--backbone", "{archive}", "{videos}"], 2, "at least two class names"),
        (["predict", "--zero-shot", "@none.txt", "--backbone", "{archive}", "{videos}"], 2, "none.txt: cannot be read"),
        (["predict", "--zero-shot", "a, b", "--backbone", "test_vit", "{videos}"], 1, "has no text tower"),
        (
            ["predict", "--zero-shot", "a, b", "--prompt", "x", "--backbone", "{archive}", "{videos}"],
            2,
            "must have {{}}",
        ),
        (
            ["evaluate", "--zero-shot", "--backbone", "{archive}", "--data", "{videos}", "--out", "{run}"],
            1,
            "holds a model already",
        ),
        (["predict", "--zero-shot", "a, " * 200, "--backbone", "{archive}", "{videos}"], 2, "'a' is given twice"),
        (["evaluate"], 2, "expected the folder of a run"),
        (["evaluate", "{run}", "--prompt", "{{}}"], 2, "go with --zero-shot"),
        (["evaluate", "--zero-shot", "--backbone", "{archive}"], 2, "--data"),
        (["evaluate", "{run}", "--zero-shot", "--backbone", "{archive}", "--data", "{videos}"], 2, "takes no run"),
    ],
)
def test_mistakes(run, finished_run, videos, archive, arguments, code, sentence):
    names = {"run": finished_run, "videos": videos, "archive": archive}
    got, out, err = run(*(argument.format(**names) for argument in arguments))
    assert (got, out) == (code, "")
    assert sentence.format() in " ".join(err.replace("│", " ").split())
