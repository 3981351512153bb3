"""How a store begins: refused before anything is computed or written, or by the one of two that comes second."""

import os
import threading

import pytest
import torch

import evl.extraction.extract
import evl.extraction.work
import evl.runtime.files
import evl.store.writing
from evl.errors import BackboneError, ExistsError, SaveError, StoreError
from evl.extraction.extract import extract
from evl.extraction.work import check_store_folder, plan_extraction
from evl.runtime.files import write_atomically
from evl.store import StoreOptions
from evl.store.shards import read_description
from evl.store.writing import write_description
from tests.store.helpers import describe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("links", [True, False])
def test_nothing_takes_the_place_of_a_file_that_came_first(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    path = tmp_path / "file"
    with write_atomically(path, only_new=True, text=True) as file:
        file.write("first")
    with pytest.raises(ExistsError, match="exists already"), write_atomically(path, only_new=True) as file:
        file.write(b"second")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("first", [path])


def test_of_two_stores_begun_at_the_same_moment_one_is_refused(tmp_path, monkeypatch):
    """Both see an empty folder."""
    both = threading.Barrier(2)
    write = evl.store.writing.write_file

    def waiting(*arguments, **options):
        both.wait(30)
        return write(*arguments, **options)

    monkeypatch.setattr(evl.store.writing, "write_file", waiting)
    problems = {}

    def begin(dtype):
        try:
            write_description(tmp_path, describe(dtype=dtype))
        except StoreError as error:
            problems[dtype] = str(error)

    threads = [threading.Thread(target=begin, args=(dtype,)) for dtype in ("float16", "int8")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    there = read_description(tmp_path).options.dtype
    (refused,) = problems
    assert {there, refused} == {"float16", "int8"}
    assert f"options.dtype is {refused} now and {there} in the store" in problems[refused]
    write_description(tmp_path, describe(dtype=there))  # and the same one, twice at the same moment, is one store


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "afile").write_text("mine")
    measured = []
    with pytest.raises(SaveError, match="afile is no folder; choose another `out`"):
        extract(tiny_config, tmp_path / "afile/deep/store", on_estimate=measured.append)
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(evl.extraction.work.os, "access", lambda path, mode: path != closed)  # root may write anywhere
    with pytest.raises(SaveError, match="closed may not be written to"):
        extract(tiny_config, closed / "store", on_estimate=measured.append)
    assert measured == []
    check_store_folder(
        plan_extraction(tiny_config, tmp_path / "new/deep/store", StoreOptions(), device=torch.device("cpu"))
    )
    assert {path.name for path in tmp_path.iterdir()} == {"afile", "closed"}


def test_a_backbone_that_cannot_be_taken_apart_leaves_the_folder_to_another_form(tiny_config, tmp_path, monkeypatch):
    def cannot(backbone):
        raise BackboneError("queries and keys cannot be made; store attention maps (form=maps)")

    for module in (evl.extraction.work, evl.extraction.extract):
        monkeypatch.setattr(module, "projections_of", cannot)
    measured = []
    with pytest.raises(BackboneError, match="form=maps"):
        extract(tiny_config, tmp_path / "store", on_estimate=measured.append)
    assert (measured, (tmp_path / "store").exists()) == ([], False)
    assert extract(tiny_config, tmp_path / "store", StoreOptions(form="maps")).is_complete
