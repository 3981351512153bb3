"""Labels that a model does not know are refused, with the file and what it does know."""

import re

import pytest

import evl
from evl.errors import DataError
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


@pytest.mark.parametrize("given", [["a.mp4"], [("a.mp4", "dark")]])
def test_evaluate_takes_samples(finished_run, given):
    with pytest.raises(DataError, match="expected a list of evl"):
        evl.evaluate(evl.load(finished_run), given)


def test_evaluate_takes_any_iterable(finished_run, videos):
    samples = (Sample(str(path), path.parent.name) for path in sorted(videos.rglob("0*.mp4")))
    assert evl.evaluate(evl.load(finished_run), samples).metrics.num_videos == 2
