"""Whole runs whose validation is of other groups: live, from a store, few-shot, a sweep; each report says it."""

import json
import shutil

import pytest

from evl.config import RunConfig, replace
from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from evl.extraction.extract import extract
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.training import train
from evl.training.few_shots.few_shot import few_shot
from evl.training.sweeps.sweep import sweep
from tests.conftest import TINY
from tests.helpers import run_command

SAID = "2 groups, none trained on"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_config):
    """Six people, each in one video of either class; two of them validate."""
    return replace(tiny_config, data={"group_by": "^([0-9]) "}, training={"steps": 2})


def groups_of(path):
    return {sample.group for sample in read_manifest(path).samples}


def assert_run_says_it(folder):
    assert json.loads((folder / "metrics.json").read_text())["protocol"].endswith(f", {SAID}")
    assert SAID in json.loads((folder / "model.json").read_text())["data"]
    assert (len(groups_of(folder / "train.csv")), len(groups_of(folder / "val.csv"))) == (4, 2)
    assert groups_of(folder / "train.csv") | groups_of(folder / "val.csv") == set("012345")


def test_a_live_run(config, tmp_path, capsys, caplog, videos):
    with caplog.at_level("INFO", "evl"):
        train(config, tmp_path / "run")
    assert f"8 training and 4 validation videos ({SAID})" in caplog.text
    assert_run_says_it(tmp_path / "run")
    train(None, tmp_path / "run", resume=True)
    assert_run_says_it(tmp_path / "run")
    code, out, _ = run_command(capsys, "evaluate", tmp_path / "run", "--out", tmp_path / "again", "--workers", 0)
    assert code == 0
    assert f"4 videos, {SAID}" in out
    # other data gets its groups as the run's own videos did
    code, out, _ = run_command(
        capsys, "evaluate", tmp_path / "run", "--data", videos, "--out", tmp_path / "again", "--workers", 0
    )
    assert code == 0
    assert "12 videos, 6 groups, 4 of them trained on" in out
    shutil.copytree(videos / "dark", tmp_path / "others/dark")
    for path in (tmp_path / "others/dark").iterdir():
        path.rename(path.with_name(f"x{path.name}"))  # of which no group is known
    code, out, _ = run_command(
        capsys, "evaluate", tmp_path / "run", "--data", tmp_path / "others", "--out", tmp_path / "again", "--workers", 0
    )
    assert code == 0
    assert "group" not in out


def test_a_store_and_what_is_made_of_it(config, tmp_path):
    extract(config, tmp_path / "store", StoreOptions(form="maps"))
    store = FeatureStore(tmp_path / "store")
    assert {name: len({one.group for one in split.samples}) for name, split in store.splits.items()} == {
        "train": 4,
        "val": 2,
    }
    stored = replace(RunConfig(), **{**TINY, "data": {"features": str(tmp_path / "store")}, "training": {"steps": 2}})
    result = train(stored, tmp_path / "run")
    assert_run_says_it(tmp_path / "run")
    assert RunConfig.from_yaml(tmp_path / "run/config.yaml").data.group_by == "^([0-9]) "
    train(None, tmp_path / "run", resume=True)
    assert SAID in result.evaluation.protocol
    assert SAID in few_shot(stored, tmp_path / "few", shots=(1,), draws=2).protocol
    sweep(stored, ("training.lr=1e-3,1e-4",), tmp_path / "sweep")
    assert SAID in json.loads((tmp_path / "sweep/sweep.json").read_text())["chosen_by"]
    assert_run_says_it(tmp_path / "sweep/best")


def test_a_store_without_groups_is_as_before(tiny_config, tmp_path):
    import pyarrow.parquet

    extract(tiny_config, tmp_path / "store", StoreOptions(form="maps"))
    assert "group" not in pyarrow.parquet.read_schema(tmp_path / "store/index.parquet").names
    assert b'"group"' not in (tmp_path / "store/shards/00000.safetensors").read_bytes()


@pytest.mark.parametrize("group_by", ["folder", "(video)", "(nothing of the kind)"])
def test_what_cannot_be_leaves_no_folder(config, tmp_path, group_by):
    with pytest.raises(DataError, match=r"no validation videos can be drawn|finds no group in '0 video\.mp4'"):
        train(replace(config, data={"group_by": group_by}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recordings_cut_by_time(tiny_config, videos, tmp_path):
    """Of twelve recordings of both classes, four validate, with all their parts; of one, none can."""
    rows = [
        f"{y}/{i} video.mp4,{label},{start},{start + 0.2}"
        for y in ("bright", "dark") for i in range(6) for label, start in (("first", 0.0), ("second", 0.2))
    ]  # fmt: skip
    header = "path,label,start_seconds,end_seconds"
    config = replace(tiny_config, data={"path": str(tmp_path / "list.csv"), "root": str(videos)}, training={"steps": 2})
    (tmp_path / "list.csv").write_text("\n".join([header, *rows[:2]]))
    with pytest.raises(DataError, match="no validation videos can be drawn: all 2 rows are of one file"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "list.csv").write_text("\n".join([header, *rows]))
    assert train(config, tmp_path / "run").evaluation.metrics.num_videos == 8
    one, two = ({s.path for s in read_manifest(tmp_path / f"run/{name}.csv").samples} for name in ("train", "val"))
    assert (len(one), len(two), len(one & two)) == (8, 4, 0)
