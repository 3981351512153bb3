"""The commands that write, as small as they can be: what they read, what lies there before, how they are called."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from tests.helpers import GOLDEN, write_video

CONFIG = {
    "backbone": {"image_size": 16},
    "model": {"taps": "last 1", "mlp_dropout": 0.1, "head_dropout": 0.1},
    "clip": {"num_frames": 2, "stride": 2},
    "augment": {"rand_augment": None},
    "data": {"num_workers": 0, "val_fraction": 0.34},
    "training": {"steps": 4, "batch_size": 2, "eval_every": 2, "save_every": 2, "log_every": 2, "lr": 1e-3,
                 "keep_last": 1},
    "evaluation": {"num_clips": 1, "num_crops": 1, "batch_size": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """``arguments`` of evl; ``OUT`` in them is the folder ``work``, and ``MADE`` that of ``make_material``.

    ``before``: what lies in ``work`` before, copied from ``MADE``. ``is_there``: what the command says, and exits with
    1, when it is called again after it has finished; None: it does it again, or exits with 0.
    """

    arguments: tuple[str, ...]
    before: dict[str, str]
    is_there: str | None = None


def _command(text: str, *, before: dict[str, str] | None = None, is_there: str | None = None) -> Command:
    return Command(tuple(text.split()), before or {}, is_there)


_GRID = "--set training.lr=1e-3,1e-4"
COMMANDS = {
    "train": _command("train --config MADE/config.yaml --out OUT/run --resume=auto"),
    "train-stored": _command("train --config MADE/config.yaml --features MADE/store --out OUT/run --resume=auto"),
    "sweep": _command(f"sweep --config MADE/config.yaml --features MADE/store --out OUT/sweep --resume=auto {_GRID}"),
    "few-shot": _command(
        "train --config MADE/config.yaml --features MADE/store --out OUT/few --shots 1,2 --draws 2 --keep-runs "
        "--resume=auto"
    ),
    "extract": _command("extract --config MADE/config.yaml --out OUT/store --yes --clips-per-video 2"),
    "evaluate": _command("evaluate MADE/run --data MADE/videos --out OUT/scores --workers 0"),
    "evaluate-again": _command(
        "evaluate MADE/run --data MADE/videos --out OUT/scores --workers 0", before={"scores": "older-scores"}
    ),
    "embed": _command("embed MADE/run --data MADE/videos --out OUT/vectors.parquet --workers 0"),
    "embed-npy": _command(
        "embed MADE/run --data MADE/videos --out OUT/vectors.npy --workers 0",
        before={"vectors.npy": "older.npy", "vectors.videos.csv": "older.videos.csv"},
    ),
    "timeline": _command(
        "timeline MADE/run MADE/videos/dark/0.mp4 MADE/videos/bright/1.mp4 --out OUT/lines --on 0",
        is_there="exists already",
    ),
    "check": _command(
        "check MADE/videos --manifest OUT/good.csv --index OUT/index.arrow --workers 0",
        before={"good.csv": "older.videos.csv"},
    ),
    "prepare": _command("prepare MADE/listed --out OUT/copies --workers 1"),
    "export": _command("export MADE/run --out OUT/exported --with-backbone", is_there="is there already"),
    "export-release": _command(
        "export MADE/run --out OUT/exported.pth --format release", is_there="is there already"
    ),
    "import-release": _command(
        f"import-release {GOLDEN}/release_checkpoint_tiny.pth --backbone {GOLDEN}/openai_clip_tiny.pt --out OUT/run",
        is_there="exists already",
    ),
    "demo": _command("demo --out OUT/demo --videos 32 --steps 1", is_there="exists already"),
}  # fmt: skip


def make_material(folder: Path, run: Callable[[Sequence[str]], None]) -> None:
    """Makes what the commands read. ``run``: runs a command of evl, and raises an error if it fails."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (folder / "videos" / name).mkdir(parents=True)
        for i in range(4):
            frames = rng.normal(level, 20, (6, 24, 32, 3)).clip(0, 255).astype(np.uint8)
            write_video(folder / "videos" / name / f"{i}.mp4", frames, options={"threads": "1"})
    shutil.copytree(folder / "videos" / "dark", folder / "listed")
    (folder / "listed/notes.txt").write_text("a list\n")
    config = {**CONFIG, "data": {**CONFIG["data"], "path": str(folder / "videos")}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    at = f"--config {folder}/config.yaml"
    run(f"extract {at} --out {folder}/store --yes --clips-per-video 2".split())
    run(f"train {at} --out {folder}/run".split())
    run(f"evaluate {folder}/run --data {folder}/videos --split all --clips 2 --out {folder}/older-scores".split())
    run(f"embed {folder}/run {folder}/videos/dark/0.mp4 --out {folder}/older.npy".split())
