"""Labels that a model does not know are refused, with the file and what it does know."""

import os
import re
from pathlib import Path

import pytest

import evl
from evl.errors import DataError, EVLError
from evl.evaluation.evaluate import labels_of
from evl.types import Sample

NAMES = ("bright", "dark")


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (["dark", "darkk"], ("1.mp4 has the label 'darkk'", "2 classes are bright, dark", "did you mean 'dark'?")),
        (["x", "y", "y"], ("0.mp4 has the label 'x'", "(3 of 3 videos have such labels: also 'y')")),
        (["dark", None], ("1.mp4 has no label",)),
        ([0], ("0.mp4 has the label 0,",)),
    ],
)
def test_unknown_labels(labels, parts):
    samples = [Sample(f"{i}.mp4", label) for i, label in enumerate(labels)]
    with pytest.raises(DataError) as error:
        labels_of(samples, NAMES)
    for part in parts:
        assert part in str(error.value)


def test_many_names_and_many_labels_stay_readable():
    with pytest.raises(DataError) as error:
        labels_of([Sample(f"{i}.mp4", f"odd {i}") for i in range(500)], [f"class {i}" for i in range(400)])
    assert "class 29, … (370 more)" in str(error.value)
    assert "'odd 5', … (494 more)" in str(error.value)


def test_evaluate_says_it_before_it_reads_anything(finished_run):
    model = evl.load(finished_run)
    with pytest.raises(DataError, match=re.escape("there/is/none.mp4 has the label 'grey', which the model")):
        evl.evaluate(model, [Sample("there/is/none.mp4", "grey")])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.mp4"], "the label .*, which the model does not know"),
        ([("a.mp4", "dark")], "expected a path as number 0 of the list, got tuple"),
        ([Sample("a.mp4")], "a.mp4 has no label"),
        (["list.csv"], "list.csv is no single video"),
        (5, "expected one path or several, got int 5"),
    ],
)
def test_evaluate_takes_samples_and_files_of_known_classes(finished_run, given, message):
    with pytest.raises(EVLError, match=message):
        evl.evaluate(evl.load(finished_run), given)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_file_has_the_label_of_its_folder(finished_run, videos, kind):
    model, paths = evl.load(finished_run), sorted(videos.rglob("0*.mp4"))
    wanted = evl.evaluate(model, [Sample(str(path), path.parent.name) for path in paths])
    got = evl.evaluate(model, [kind(path) for path in paths])
    assert (got.predictions, got.damaged) == (wanted.predictions, {})
    clips = evl.ClipDataset([kind(path) for path in paths], model, split="val")
    assert [clips.class_names[label] for label in clips.labels] == [path.parent.name for path in paths]


def test_evaluate_takes_any_iterable(finished_run, videos):
    samples = (Sample(str(path), path.parent.name) for path in sorted(videos.rglob("0*.mp4")))
    assert evl.evaluate(evl.load(finished_run), samples).metrics.num_videos == 2
