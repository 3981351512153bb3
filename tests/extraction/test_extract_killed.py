"""A store that was killed while it was made equals one made in one go, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evl.config import replace


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed(config, folder: Path, *arguments) -> dict:
    (folder / "config.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "tests.extraction.killed", folder / "config.yaml", folder, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow  # tests/faults has moments of extract in the default tests
def test_killed_at_every_step_of_writing_and_at_random(tiny_config, tmp_path, videos):
    found = killed(tiny_config, tmp_path, "moments", 3, 0)
    whole = files_of(tmp_path / "whole")
    assert {"store.json", "projections.safetensors", "index.parquet", "shards/00003.safetensors"} <= set(whole)
    assert found["moments"] == 3 * len(whole)  # each file: half written, not yet renamed, just renamed
    assert found["kills"] == 3
    equal_all(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["random", "together"])
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_twenty_times(tiny_config, tmp_path, how, seed):
    config = replace(tiny_config, evaluation={"num_clips": 6, "num_crops": 3}, clip={"num_frames": 6})
    found = killed(config, tmp_path, how, 20, seed)
    assert found["kills"] == 20
    assert len(set(found["shards_then"])) > 1, found  # not always at the same stage; how far it got depends on the load
    equal_all(tmp_path, files_of(tmp_path / "whole"))


def equal_all(folder: Path, whole: dict[str, bytes]) -> None:
    others = [path for path in folder.iterdir() if path.is_dir() and path.name not in ("whole", "videos")]
    assert len(others) >= 2
    for path in others:
        found = files_of(path)
        assert found.keys() == whole.keys(), path.name
        assert [name for name in whole if found[name] != whole[name]] == [], path.name
