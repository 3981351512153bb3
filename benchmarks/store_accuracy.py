"""What storing features costs in accuracy: python benchmarks/store_accuracy.py; writes results/store-accuracy-NAME.*

The demo's task (`motions`: 14 motions; its encoder, sizes and settings), by the commands a user has. `evl train` on
the videos, whose frames are drawn anew in every epoch; and `evl extract`, then `evl train --features`, for every way
to store, with the same seeds. With as many clips a video as there are epochs both see the same clips. Rows of several
calls with one --name are put together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from evl import __version__
from evl.bench.measure import describe_machine
from evl.data.loader import default_num_workers
from evl.demo.motions import make_motions
from evl.demo.results import EVL
from evl.demo.run import BATCH_SIZE, DEFAULT, config_of
from evl.evaluation import wilson_interval

RESULTS = Path(__file__).parent / "results"
STORES = {  # name: options of evl extract
    "float32": ["--dtype", "float32"],
    "float16": ["--dtype", "float16"],
    "bfloat16": ["--dtype", "bfloat16"],
    "int8, a scale a channel": ["--dtype", "int8", "--scale", "channel"],
    "int8, a scale a token": ["--dtype", "int8", "--scale", "token"],
    "float8, a scale a channel": ["--dtype", "float8", "--scale", "channel"],
    "float8, a scale a token": ["--dtype", "float8", "--scale", "token"],
    "maps, float16": ["--form", "maps", "--dtype", "float16"],
    "maps, int8, a scale a channel": ["--form", "maps", "--dtype", "int8", "--scale", "channel"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=int, default=DEFAULT.train)
    parser.add_argument("--steps", type=int, default=DEFAULT.steps)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--clips-per-video", type=int, nargs="+", help="default: one an epoch, and 1")
    parser.add_argument("--only", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--no-live", action="store_true")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    epochs = -(-options.steps * BATCH_SIZE // options.videos)
    rows = []

    def note(what: str, seed: int, top1: float, megabytes: float, extracting: float, training: float) -> None:
        rows.append(
            dict(what=what, seed=seed, top1=top1, megabytes=megabytes, extracting=extracting, training=training)
        )
        print(
            f"{what}, seed {seed}: {top1:.1f} %  ({megabytes:,.0f} MB, {extracting:.0f} s, {training:.0f} s)",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        counts = {"train": options.videos, "test": DEFAULT.test}
        make_motions(folder, counts, seed=0, workers=default_num_workers())
        for seed in range(options.seeds):
            config = folder / f"{seed}.yaml"
            config.write_text(config_of(EVL, "motion", folder, options.steps, seed).to_yaml())
            if not options.no_live:
                seconds = run("train", "--config", config, "--out", folder / "run", "--set", "training.eval_every=0")
                note("live", seed, top1_of(folder / "run"), 0, 0, seconds)
            for clips in options.clips_per_video or (epochs, 1):
                for name in options.only:
                    # the seed decides which clips are stored
                    store, chosen = folder / "store", STORES[name]
                    made = run("extract", "--config", config, "--out", store, "--clips-per-video", clips, *chosen)
                    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e6
                    arguments = ["--config", config, "--features", store, "--out", folder / "run"]
                    seconds = run("train", *arguments, "--set", "training.eval_every=0")
                    note(f"{name}, {clips} clips a video", seed, top1_of(folder / "run"), size, made, seconds)
                    shutil.rmtree(store)
    write(options, epochs, rows)


def run(*arguments) -> float:
    """Seconds of a command of evl, whose run folder is new."""
    if "--out" in arguments:
        shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "evl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"evl {' '.join(map(str, arguments))}\n{done.stderr}")
    return time.perf_counter() - started


def top1_of(folder: Path) -> float:
    return json.loads((folder / "metrics.json").read_text())["top1"]


def write(options, epochs: int, rows: list[dict]) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine(torch.device("cpu"))
    path = RESULTS / f"store-accuracy-{options.name}"
    if path.with_suffix(".json").exists():  # of an earlier call with the same name
        rows = json.loads(path.with_suffix(".json").read_text())["rows"] + rows
    settings = dict(videos=options.videos, steps=options.steps, epochs=epochs, evl=__version__, cores=os.cpu_count())
    path.with_suffix(".json").write_text(json.dumps(dict(machine=machine, **settings, rows=rows), indent=2) + "\n")
    lines = [
        f"Training {options.videos} videos, judging {DEFAULT.test}; {options.steps} steps of {BATCH_SIZE} clips, "
        f"{epochs} epochs; {machine}",
        "",
        "| trained on | seed | top-1 (95 %, over videos) | MB | extracting, s | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = wilson_interval(round(row["top1"] * DEFAULT.test / 100), DEFAULT.test)
        lines.append(
            f"| {row['what']} | {row['seed']} | {row['top1']:.1f} ({low:.1f}–{high:.1f}) | {row['megabytes']:,.0f} | "
            f"{row['extracting']:.0f} | {row['training']:.0f} |"
        )
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
