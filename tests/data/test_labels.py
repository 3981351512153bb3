"""One spelling of a label, from lists and folders to saved models."""

import json
import shutil
import unicodedata

import pytest

from evl.data.manifests.labels import class_number, clean_names, is_empty_cell, sort_labels
from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from evl.evaluation.evaluate import labels_of
from evl.runtime.text import clean_label
from evl.saving import load
from evl.types import Sample

NAME = "Tür öffnen"
DECOMPOSED = unicodedata.normalize("NFD", NAME)


@pytest.mark.parametrize("text", [NAME, DECOMPOSED, f" {NAME}\t", f"\ufeff{DECOMPOSED} \u200b", f"\u3000{NAME}\u00a0"])
def test_clean_label(text):
    assert clean_label(text) == NAME
    assert clean_names([text, "b"]) == (NAME, "b")
    assert labels_of([Sample("1", text), Sample("2", "b ")], ["b", NAME]) == [1, 0]
    assert labels_of([Sample("1", NAME)], ["b", text]) == [1]


def test_names_of_old_models_that_would_fall_together_stay():
    assert clean_names([NAME, DECOMPOSED]) == (NAME, DECOMPOSED)


def test_cells():
    assert [is_empty_cell(value) for value in (None, float("nan"), "", " \u200b", "NaN", "<NA>", " nan  ")] == [
        True
    ] * 7
    assert not any(map(is_empty_cell, (0, 0.0, False, "None", "NA", "naan", "0")))
    assert [class_number(text) for text in ("3", "3.0", "3.", "03.00", "3.5", "-1", "1e1", "²", "3.0.0")] == [
        3, 3, 3, 3, None, None, None, None, None,
    ]  # fmt: skip
    assert sort_labels({"10", "9", "1"}) == ("1", "9", "10")
    assert sort_labels({"10", "9", "x"}) == ("10", "9", "x")


def test_a_model_saved_with_other_spellings_is_loaded_with_one(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    card = json.loads((folder / "model.json").read_text())
    card["class_names"] = [DECOMPOSED, *card["class_names"][1:]]
    (folder / "model.json").write_text(json.dumps(card))
    model = load(folder)
    assert model.class_names[0] == model.card.class_names[0] == NAME
    (tmp_path / "a.csv").write_text("path,label\na.mp4,Tur öffnen\n")
    with pytest.raises(DataError, match="unknown class"):
        read_manifest(tmp_path / "a.csv", class_names=model.class_names)
    (tmp_path / "a.csv").write_text(f"path,label\na.mp4, {DECOMPOSED}\n")
    assert read_manifest(tmp_path / "a.csv", class_names=model.class_names).samples[0].label == NAME
