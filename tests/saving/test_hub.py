"""To the hub and back, with a hub that is a folder: no network, the library's own code up to its requests."""

import errno
import json
import os
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard as Readme

import evl
from evl.errors import CheckpointError, SaveError
from evl.saving.folder import is_hub_id
from tests.helpers import GOLDEN
from tests.saving.test_saved import clips_for, make

pytestmark = pytest.mark.usefixtures("one_thread")

COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub's in its own form, and no network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    for module in (huggingface_hub.constants,):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return cache


def put(model, cache, hub_id, **options):
    """As if the model had been pushed, and fetched once."""
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    model.save_pretrained(folder / "snapshots" / COMMIT, **options)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)


def test_loading_by_hub_id_offline(hub):
    model = make()
    put(model, hub, "someone/doors")
    clips = clips_for(model)
    for loaded in (
        evl.load("someone/doors"),
        evl.VideoClassifier.from_pretrained("someone/doors"),
        evl.VideoClassifier.from_pretrained("someone/doors", num_frames=3),
        evl.load("someone/doors", revision="main"),
    ):
        assert torch.equal(loaded(clips), model(clips))
        assert isinstance(loaded, evl.VideoClassifier)
    with pytest.raises(
        CheckpointError, match=r"someone/other.*hf download someone/other model\.safetensors model\.json"
    ):
        evl.load("someone/other")
    with pytest.raises(CheckpointError, match="someone/doors at v2 is no folder here"):
        evl.load("someone/doors", revision="v2")


def test_a_folder_comes_before_the_hub(hub, tmp_path):
    put(make(), hub, "someone/doors")
    (tmp_path / "someone").mkdir()
    assert not is_hub_id("someone/doors")  # meant as a folder that is not there
    with pytest.raises(CheckpointError, match="no saved model here"):
        evl.load("someone/doors")
    local = make(names=("other", "names", "here"))
    local.save_pretrained("someone/doors")
    assert evl.load("someone/doors").class_names == ("other", "names", "here")
    assert evl.VideoClassifier.from_pretrained("someone/doors").class_names == ("other", "names", "here")


@pytest.mark.parametrize("path", ["one", "a/b/c", "/a/b", "../b", "./b", "a/", "a/b c", ""])
def test_paths_that_are_no_hub_ids(hub, path):
    assert not is_hub_id(path)


def catch_pushes(monkeypatch, folder):
    """Makes pushes to the Hub copy their files to ``folder``; what was asked for will be in the dict returned."""
    sent = {}

    class Api:
        def __init__(self, *args, **kwargs):
            pass

        def create_repo(self, repo_id, **options):
            sent["repo"] = (repo_id, options.get("private"))
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id, folder_path, **options):
            shutil.copytree(folder_path, folder)
            return f"hub:{repo_id}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    return sent


@pytest.mark.parametrize("with_backbone", [False, True])
def test_pushing(hub, monkeypatch, tmp_path, with_backbone):
    sent = catch_pushes(monkeypatch, tmp_path / "pushed")
    model = make()
    assert model.push_to_hub("someone/doors", with_backbone=with_backbone, private=True) == "hub:someone/doors"
    assert sent["repo"] == ("someone/doors", True)
    assert {path.name for path in (tmp_path / "pushed").iterdir()} == {"model.safetensors", "model.json", "README.md"}
    loaded = evl.load(tmp_path / "pushed")
    assert torch.equal(loaded(clips_for(model)), model(clips_for(model)))
    assert loaded.card.with_backbone is with_backbone
    page = (tmp_path / "pushed" / "README.md").read_text()
    assert 'evl.load("someone/doors")' in page
    assert ("weights are inside" in page) is with_backbone
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "model.json").read_text())["with_backbone"] is False  # nothing sticks


def test_the_page_says_what_a_person_must_know(hub, tmp_path):
    model = make(names=("opening a door", "<b>*odd*</b>\nname", "[link](x)"))
    scores = {"top1": 51.25, "protocol": "8x16 frames, 3x1 views, 40 videos"}
    model.card = model.card.__class__(**{**vars(model.card), "scores": scores, "data": "doors, 80 videos"})
    model.save_pretrained(tmp_path / "model")
    page = Readme.load(tmp_path / "model" / "README.md")
    assert page.data.library_name == "evl"
    assert page.data.pipeline_tag == "video-classification"
    assert page.data.license is None  # nobody said one
    for part in ("51.25", "8x16 frames, 3x1 views, 40 videos", "doors, 80 videos", "evl_clip_tiny", "0. opening a door",
                 model.backbone.weights_hash, "licence of its weights"):  # fmt: skip
        assert part in page.text
    assert r"1. \<b\>\*odd\*\</b\> name" in page.text
    unscored = make()
    unscored.save_pretrained(tmp_path / "unscored")
    assert "None were measured" in (tmp_path / "unscored" / "README.md").read_text()


def test_a_page_that_a_person_wrote_stays(hub, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", with_backbone=True)
    page = tmp_path / "model" / "README.md"
    assert "are inside" in page.read_text()  # made anew
    page.write_text("# Mine")
    model.save_pretrained(tmp_path / "model", with_backbone=False)
    assert page.read_text() == "# Mine"


def test_nothing_gets_into_the_page_by_the_back_door(hub, tmp_path):
    model = make()
    scores = {"top1": "93", "protocol": "x`\n# Heading\n<b>"}
    data = "v\n# Injected\n---\nlicense: mit, 3 videos"
    model.card = model.card.__class__(**{**vars(model.card), "scores": scores, "data": data})
    model.save_pretrained(tmp_path / "model")
    page = Readme.load(tmp_path / "model" / "README.md")
    assert page.data.license is None
    assert [line for line in page.text.splitlines() if line.startswith("# ")] == ["# A video classifier"]
    assert "<b>" not in page.text.replace("`x # Heading <b>`", "")


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, monkeypatch):
    model = make()
    for name in ("bad id!!", "", "a/b/c"):
        with pytest.raises(SaveError, match="no name on the hub"):
            model.push_to_hub(name)
    with pytest.raises(SaveError, match="could not be pushed to someone/doors"):
        model.push_to_hub("someone/doors")


def test_a_pushed_card_says_nothing_of_this_machine(hub, tmp_path):
    backbone = {"name": "openai_clip", "weights": str(GOLDEN / "openai_clip_tiny.pt")}
    files = {"path": str(tmp_path / "videos"), "features": str(tmp_path / "store")}
    model = make(backbone=backbone, data=files, training={"init": str(tmp_path / "start")})
    with model._saving(False, "someone/doors"):
        model.save_pretrained(tmp_path / "pushed")
    text = (tmp_path / "pushed" / "model.json").read_text()
    config = json.loads(text)["config"]
    assert config["backbone"]["weights"] == "openai_clip_tiny.pt"
    assert (config["data"]["path"], config["data"]["features"], config["training"]["init"]) == (
        "videos",
        "store",
        "start",
    )
    assert str(GOLDEN.parent) not in text
    assert str(tmp_path) not in text
    model.save_pretrained(tmp_path / "exported")  # here: with the path of the encoder's file, which loading needs
    assert str(tmp_path) not in (tmp_path / "exported" / "model.json").read_text()
    assert torch.equal(evl.load(tmp_path / "exported")(clips_for(model)), model(clips_for(model)))
    shutil.copy(GOLDEN / "openai_clip_tiny.pt", tmp_path / "pushed")
    assert torch.equal(evl.load(tmp_path / "pushed")(clips_for(model)), model(clips_for(model)))


def test_a_new_folder_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    """In a folder with files, others stay, and each of the model's is replaced whole."""
    model = make()

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        with pytest.raises(SaveError, match="No space left"):
            model.save_pretrained(tmp_path / "new")
        assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path / "new")
    expected = ["README.md", "model.json", "model.safetensors"]
    assert sorted(os.listdir(tmp_path / "new")) == expected
    (tmp_path / "new/mine.txt").touch()
    model.save_pretrained(tmp_path / "new")
    assert sorted(os.listdir(tmp_path / "new")) == sorted([*expected, "mine.txt"])
    assert os.listdir(tmp_path) == ["new"]
