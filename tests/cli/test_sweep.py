"""evl sweep."""

import json

import pytest
from PIL import Image

from evl.cli.common import spread_set
from tests.helpers import run_command
from tests.store.helpers import describe, make_store

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ("training.steps=2", "training.batch_size=4", "model.mlp_ratio=1")


@pytest.fixture
def store(tmp_path):
    make_store(tmp_path / "store", describe(form="maps", splits={"train": 6, "val": 3, "test": 3}))
    return tmp_path / "store"


@pytest.mark.usefixtures("real_pictures")
def test_a_sweep_from_a_store(capsys, store, tmp_path):
    grid = ("--set", "training.lr=1e-3,1e30", "model.temporal_conv=true,false", *SMALL)
    code, out, err = run_command(capsys, "sweep", "--features", store, "--out", tmp_path / "out", *grid)
    assert code == 0, err
    assert "temporal_conv" in out
    assert "top-5" not in out  # of two classes
    assert "4x16 frames, 2x1 views" in out
    assert "from a store (maps" in out
    assert "test top-1 of the chosen learner" in out
    assert "2 of 4 learners were dropped" in err
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("00")]
    assert [row[1] for row in rows] == ["1e-3", "1e-3", "1e30", "1e30"]
    assert [row[3] for row in rows][2:] == ["dropped", "dropped"]
    assert (tmp_path / "out/sweep.png").stat().st_size > 10_000
    with Image.open(tmp_path / "out/sweep.png") as picture:
        assert min(picture.size) > 300
    assert "best" in out.splitlines()[-1]


def test_json_is_what_the_file_holds(capsys, store, tmp_path):
    grid = ("--set", "model.head_dropout=0.1,0.2,0.3", "model.taps=[2,5],[3]", *SMALL)
    code, out, _ = run_command(
        capsys, "sweep", "--features", store, "--out", tmp_path / "out", "--json", "--predictions", *grid
    )
    assert code == 0
    assert len(list((tmp_path / "out/learners").glob("*/predictions.parquet"))) == 6
    assert json.loads(out) == json.loads((tmp_path / "out/sweep.json").read_text())
    assert len(json.loads(out)["learners"]) == 6


def test_many_heads_on_live_features(capsys, tiny_config, tmp_path):
    (tmp_path / "config.yaml").write_text(tiny_config.to_yaml())
    grid = ("--set", "training.steps=2", "training.eval_every=0", "training.lr=1e-3,1e-4", "model.decoder=evl,linear")
    options = ("--config", tmp_path / "config.yaml", *grid, "--out", tmp_path / "out")
    code, out, err = run_command(capsys, "sweep", *options)
    assert code == 0, err
    assert "4 learners, 2 steps" in out
    assert "optimistic" in out
    assert (tmp_path / "out/best/model.json").exists()


def test_refusals(capsys, store, tmp_path):
    out = ("--out", tmp_path / "out")
    code, _, err = run_command(capsys, "sweep", "--resume", "--features", store, "--set", "training.lr=1,2", *out)
    assert code == 2
    assert "leave out --features, --set" in err
    code, _, err = run_command(capsys, "sweep", "--features", store, "--set", "clip.stride=1,2", *out)
    assert code == 2
    assert "cannot vary in a sweep" in err
    code, _, err = run_command(capsys, "sweep", "--set", "training.lr=1,2", *out)
    assert code == 2
    assert "no videos" in err
    assert not (tmp_path / "out").exists()


def test_settings_may_follow_each_other():
    assert spread_set(["sweep", "--set", "a.b=1,2", "c.d=3", "--out", "x", "--set", "e.f=1", "g.h=2"]) == [
        "sweep", "--set", "a.b=1,2", "--set", "c.d=3", "--out", "x", "--set", "e.f=1", "--set", "g.h=2",
    ]  # fmt: skip
