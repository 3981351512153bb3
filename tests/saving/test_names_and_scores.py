"""What a person changes on a loaded model, and saves: class names, the head, the weights that were scored."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import evl
from evl.config import RunConfig, replace
from evl.errors import CheckpointError, ConfigError
from evl.models import ClassifierHead
from evl.saving import read_card, save_model, save_release
from tests.saving.test_saved import NAMES, clips_for, make

pytestmark = pytest.mark.usefixtures("one_thread")
SCORES = {"top1": 62.5, "top5": 100.0, "num_videos": 8, "protocol": "eight videos"}


@pytest.fixture
def scored(tmp_path):
    """The folder of a model with scores."""
    save_model(make("linear"), tmp_path / "scored", scores=SCORES)
    return tmp_path / "scored"


@pytest.mark.parametrize("names", [["oben", "unten", "links"], ("a", "b", "c"), (name for name in "xyz")])
def test_names_that_are_set_are_saved(scored, tmp_path, names):
    model = evl.load(scored)
    model.class_names = names
    wanted = model.class_names
    assert isinstance(wanted, tuple)
    assert len(wanted) == 3
    assert wanted != NAMES
    model.save_pretrained(tmp_path / "new")
    loaded = evl.load(tmp_path / "new")
    assert loaded.class_names == loaded.card.class_names == read_card(tmp_path / "new").class_names == wanted
    page = (tmp_path / "new" / "README.md").read_text()
    assert f"0. {wanted[0]}\n1. {wanted[1]}\n2. {wanted[2]}" in page
    assert loaded.card.scores == SCORES  # the same classes in the same order
    assert read_card(scored).class_names == NAMES


def test_names_are_cleaned_as_labels_are(scored):
    model = evl.load(scored)
    model.class_names = [" o\u0308ffnen\n", "auf\u00a0", "zu"]
    assert model.class_names == ("\u00f6ffnen", "auf", "zu")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a", "b"], "2 class names for a head of 3 outputs"),
        (["a", "b", "c", "d"], "4 class names for a head of 3 outputs"),
        ([], "0 class names for a head of 3 outputs"),
        ("abc", "expected a list"),
        (None, "expected a list"),
        (["a", "b", 3], "class name 2 is 3"),
        (["a", "b", None], "class name 2 is None"),
        (["a", "b", "a"], "'a' is there twice, as 0 and 2"),
        (["a", "b", " a "], "'a' is there twice"),
        (["e\u0301", "\u00e9", "c"], "there twice"),
        (["a", "", "c"], "class name 1 is empty"),
        (["a", "  ", "c"], "class name 1 is empty"),
        (["a", "b\nc", "d"], "line break"),
        (["a", "b\ud800", "d"], "not UTF-8"),
    ],
)
def test_names_that_cannot_be(scored, names, sentence):
    model = evl.load(scored)
    with pytest.raises(ConfigError, match=sentence):
        model.class_names = names
    assert model.class_names == NAMES


def test_a_model_without_a_card_takes_names_too():
    model = make("linear")
    model.card = None
    with pytest.raises(ConfigError):
        model.class_names = ["a"]
    model.class_names = ["a", "b", "c"]
    assert model.class_names == ("a", "b", "c")


HEADS = {
    "in its place": lambda head, count: ClassifierHead(head.linear.in_features, count),
    "linear alone": lambda head, count: nn.Linear(head.linear.in_features, count),
    "linear without bias": lambda head, count: nn.Linear(head.linear.in_features, count, bias=False),
}


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("kind", [*HEADS, "its linear layer", "its linear layer, without bias"])
def test_a_head_of_another_size(scored, tmp_path, kind, count):
    model = evl.load(scored)
    if kind in HEADS:
        model.head = HEADS[kind](model.head, count)
    else:
        model.head.linear = nn.Linear(model.head.linear.in_features, count, bias="without" not in kind)
    with pytest.raises(CheckpointError, match=f"{count} outputs and 3 class names; set model.class_names"):
        model.save_pretrained(scored)
    assert evl.load(scored).class_names == NAMES  # what was there still is
    model.class_names = [f"class {y}" for y in range(count)]
    model.eval().save_pretrained(tmp_path / "new")
    loaded, clips = evl.load(tmp_path / "new"), clips_for(model)
    assert loaded.class_names == model.class_names
    assert torch.equal(loaded(clips), model(clips))
    assert loaded(clips).shape == (2, count)
    assert loaded.card.scores is None
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(evl.load(tmp_path / "again")(clips), model(clips))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: setattr(m, "head", nn.Sequential(nn.Linear(128, 3), nn.Tanh())), r"the head holds head.0.weight"),
        (lambda m: setattr(m, "head", nn.Linear(8, 3)), r"head.weight \(3, 8\), head.bias \(3,\), expected"),
        (lambda m: setattr(m.head, "linear", nn.Linear(m.head.linear.in_features, 1)), "1 outputs and 3 class names"),
        (lambda m: m.decoder.layers.pop(0), "could not be loaded again"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, change, sentence):
    model = make()
    change(model)
    with pytest.raises(CheckpointError, match=sentence):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "model.json").exists()


def test_a_card_with_other_names_is_held_to_the_head(scored, tmp_path):
    from dataclasses import replace as with_fields

    model = evl.load(scored)
    model.card = with_fields(model.card, class_names=("a", "b", "c"))
    assert model.class_names == ("a", "b", "c")
    model.card = with_fields(model.card, class_names=("a", "b"))
    with pytest.raises(CheckpointError, match="3 outputs and 2 class names"):
        save_model(model, tmp_path / "new")


def fine_tune(model):
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=0.1)
    nn.functional.cross_entropy(model(clips_for(model)), torch.tensor([0, 1])).backward()
    optimizer.step()


def test_scores_go_with_the_weights_that_they_are_of(scored, tmp_path, caplog):
    model = evl.load(scored)
    model.save_pretrained(tmp_path / "same")
    assert read_card(tmp_path / "same").scores == SCORES
    assert "62.50" in (tmp_path / "same" / "README.md").read_text()
    assert not caplog.records
    fine_tune(model)
    with caplog.at_level(logging.WARNING, "evl"):
        model.save_pretrained(tmp_path / "tuned")
    assert "scores of before are left out" in caplog.text
    assert read_card(tmp_path / "tuned").scores is None
    assert "None were measured" in (tmp_path / "tuned" / "README.md").read_text()
    new = {**SCORES, "top1": 75.0}
    save_model(model, tmp_path / "measured", scores=new)
    evl.load(tmp_path / "measured").save_pretrained(tmp_path / "again")
    assert read_card(tmp_path / "again").scores == new


def test_scores_that_a_person_sets_on_the_card_are_of_the_weights_then(scored, tmp_path):
    from dataclasses import replace as with_fields

    model = evl.load(scored)
    fine_tune(model)
    model.card = with_fields(model.card, scores={**SCORES, "top1": 75.0})
    model.save_pretrained(tmp_path / "new")
    assert read_card(tmp_path / "new").scores["top1"] == 75.0


def test_scores_of_an_older_file_are_of_its_weights(scored, tmp_path):
    import json

    content = json.loads((scored / "model.json").read_text())
    del content["scored_hash"]
    (scored / "model.json").write_text(json.dumps(content))
    model = evl.load(scored)
    model.save_pretrained(tmp_path / "same")
    assert read_card(tmp_path / "same").scores == SCORES
    fine_tune(model)
    model.save_pretrained(tmp_path / "tuned")
    assert read_card(tmp_path / "tuned").scores is None


def test_weights_that_were_exchanged_in_the_folder_are_not_those_scored(scored, tmp_path):
    """Those of another save are refused; those without an id, which a person may have made, have no scores."""
    torch.manual_seed(5)
    other = evl.load(scored)
    fine_tune(other)
    save_model(other, tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(scored / "model.safetensors")
    with pytest.raises(CheckpointError, match="not of the same model"):
        evl.load(scored)
    save_file(load_file(scored / "model.safetensors"), scored / "model.safetensors")
    evl.load(scored).save_pretrained(tmp_path / "new")
    assert read_card(tmp_path / "new").scores is None


def test_the_same_names_in_another_order_drop_scores(scored):
    model = evl.load(scored)
    model.class_names = ["down", "up", "left"]
    assert model.card.scores is None


def test_zero_shot_names_are_as_many_as_its_texts(tmp_path):
    config = replace(RunConfig(), model={"decoder": "zero_shot", "taps": "last 1"})
    from evl.saving import build_classifier

    model = build_classifier(config, ("a ring", "a star"))
    with pytest.raises(ConfigError, match="3 class names for a head of 2 outputs"):
        model.class_names = ["a", "b", "c"]
    model.class_names = ["ring", "star"]
    model.save_pretrained(tmp_path)
    assert evl.load(tmp_path).class_names == ("ring", "star")


def test_a_head_that_the_release_has_no_form_for(tmp_path):
    model = make()
    model.head = nn.Linear(model.head.linear.in_features, 3)
    with pytest.raises(CheckpointError, match="its head is a Linear"):
        save_release(model, tmp_path / "x.pth")
