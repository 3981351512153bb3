"""Training in two processes is training in one."""

import json
import shutil

import pytest

import evl
from evl.config import RunConfig, replace
from evl.errors import RunError
from evl.extraction.extract import extract
from evl.store.description import StoreOptions
from evl.training import train
from tests.training.helpers import WITHOUT_EFFECT, assert_same_run, in_two_processes, with_broken_in_training


def labeled_segments(videos, folder):
    """A manifest of three videos, of which one process judges two."""
    rows = [f"{videos}/{name}/{i} video.mp4,{name},0,0.3" for i, name in enumerate(("dark", "bright", "dark"))]
    (folder / "segments.csv").write_text("\n".join(["path,label,start_seconds,end_seconds", *rows]))
    return folder / "segments.csv"


def as_side(config):
    """The config with a side network, whose batch norms are over both processes."""
    model = {"decoder": "side", "side_width": 16, "head_dropout": 0}
    config = replace(config, model={"mlp_dropout": RunConfig().model.mlp_dropout})
    return replace(config, model=model, training={"accumulation": 1, "eval_every": 0})


@pytest.mark.parametrize("how", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_processes_equal_one(tiny_config, tmp_path, videos, how):
    """Live and from a store, where broken videos are missing from the same batches."""
    config = replace(tiny_config, model={"mlp_dropout": 0, "head_dropout": 0}, training={"accumulation": 2})
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/broken.mp4").write_bytes(b"broken" * 1000)  # each process must cope when it meets it
    config = replace(config, data={"path": str(tmp_path / "videos"), "max_damaged_share": 0.5})
    config = with_broken_in_training(config)
    train(config, tmp_path / "one")
    extract(config, tmp_path / "store", StoreOptions(form="maps", dtype="float32", clips_per_video=3))
    stored = replace(config, data={"path": None, "features": str(tmp_path / "store")})
    (tmp_path / "live.yaml").write_text(config.to_yaml())
    (tmp_path / "stored.yaml").write_text(stored.to_yaml())
    side = as_side(config)
    train(side, tmp_path / "one side")
    (tmp_path / "side.yaml").write_text(side.to_yaml())
    done = in_two_processes(
        how,
        ["train", "--config", tmp_path / "live.yaml", "--out", tmp_path / "two"],
        ["train", "--config", tmp_path / "stored.yaml", "--out", tmp_path / "two stored"],
        ["train", "--config", tmp_path / "side.yaml", "--out", tmp_path / "two side"],
        ["evaluate", tmp_path / "two", "--timeline", "--data", labeled_segments(videos, tmp_path)],
        ["evaluate", tmp_path / "two", "--data", videos, "--json", "--out", tmp_path / "judged"],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("edit score") == 1
    evl.evaluate_timelines(tmp_path / "two", tmp_path / "segments.csv", out=tmp_path / "lines", progress=False)
    for name in ("metrics.json", "videos.csv", "segments.csv"):
        found, wanted = ((folder / name).read_text() for folder in (tmp_path / "two/timeline", tmp_path / "lines"))
        assert found == wanted
    found = evl.read_predictions(tmp_path / "one").paths
    assert len(set(found)) == len(found)
    for run in (tmp_path / "two", tmp_path / "two stored"):
        assert_same_run(tmp_path / "one", run)
        assert (run / "damaged.csv").read_text() == (tmp_path / "one/damaged.csv").read_text()
        assert evl.read_predictions(run).paths == found
    assert_same_run(tmp_path / "one side", tmp_path / "two side", WITHOUT_EFFECT)
    assert json.loads(done.stdout[done.stdout.index("{") :])["num_videos"] == 12
    with pytest.raises(RunError, match=r"1 of 9 training videos are damaged"):
        train(replace(stored, data={"max_damaged_share": 0.05}), tmp_path / "strict")
