"""What storing features costs in accuracy: python benchmarks/store_accuracy.py; writes results/store-accuracy-NAME.*

The demo's task (`motions`: 14 motions; its encoder, sizes and settings), several initial values each. `evl sweep`
on the videos, whose frames are drawn anew in every epoch; and `evl extract` in float32, then `evl sweep --features` on
what it stored, and on the same clips in every other type: packed anew from float32, which is what `evl extract` packs
too. A store has --clips-per-video training clips, which later epochs see again.
--decoder takes another of the demo's decoders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from evl._version import __version__
from evl.bench.measure import describe_machine
from evl.data.loader import default_num_workers
from evl.datasets.motions import make_motions
from evl.demo.contenders import BATCH_SIZE, DEFAULT, config_of
from evl.demo.results import EVL, SIDE
from evl.evaluation import mean_interval, wilson_interval
from evl.models.crossframe import packed_maps
from evl.runtime.text import table
from evl.store import FeatureStore, StoreOptions
from evl.store.description import PROJECTIONS, shard_ranges
from evl.store.index import write_index
from evl.store.packing import pack_maps, pack_tokens
from evl.store.unpacker import open_unpacker
from evl.store.writing import ShardItem, write_description, write_shard

RESULTS = Path(__file__).parent / "results"
WHOLE = "float32"
STORES = {
    WHOLE: {},
    "float16": {"dtype": "float16"},
    "int8, a scale a channel": {"dtype": "int8", "scale": "channel"},
    "int8, a scale a token": {"dtype": "int8", "scale": "token"},
    "float8, a scale a channel": {"dtype": "float8", "scale": "channel"},
    "float8, a scale a token": {"dtype": "float8", "scale": "token"},
    "bfloat16": {"dtype": "bfloat16"},
    "maps, int8, a scale a channel": {"form": "maps", "dtype": "int8", "scale": "channel"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=int, default=DEFAULT.train)
    parser.add_argument("--steps", type=int, default=DEFAULT.steps)
    parser.add_argument("--seeds", type=int, default=3, help="initial values; clips and their order are shared")
    parser.add_argument("--clips-per-video", type=int, default=3)
    parser.add_argument("--decoder", choices=(EVL, SIDE), default=EVL)
    parser.add_argument("--no-live", action="store_true", help="only stores")
    parser.add_argument("--only", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--at-once", type=int, default=default_num_workers(), help="trainings, a thread each")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.at_once) as pool:
        folder = Path(folder)
        make_motions(folder, {"train": options.videos, "test": DEFAULT.test}, seed=0, workers=default_num_workers())
        config = folder / "config.yaml"
        config.write_text(config_of(options.decoder, "motion", folder, options.steps, 0).to_yaml())
        seeds = "training.seed=" + ",".join(map(str, range(options.seeds)))

        def note(what: str, sweep: Path) -> None:
            learners = json.loads((sweep / "sweep.json").read_text())["learners"]
            found[what] = [row["val_top1"] for row in sorted(learners, key=lambda row: row["learner"])]
            print(what, " ".join(f"{top1:.1f}" for top1 in found[what]), flush=True)
            write(options, found)

        def live() -> None:
            run("sweep", "--config", config, "--out", folder / "live", "--set", seeds)
            note("live", folder / "live")

        def from_store(name: str) -> None:
            store, out = folder / f"store {name}", folder / f"sweep {name}"
            pack_again(whole, store, StoreOptions(**{"clips_per_video": options.clips_per_video, **STORES[name]}))
            run("sweep", "--config", config, "--features", store, "--out", out, "--set", seeds)
            note(name, out)
            shutil.rmtree(store)

        running = [] if options.no_live else [pool.submit(live)]
        whole = folder / "whole"
        more = ["--dtype", WHOLE, "--clips-per-video", options.clips_per_video]
        run("extract", "--config", config, "--out", whole, *more)
        running += [pool.submit(from_store, name) for name in options.only]
        for one in running:
            one.result()


def run(*arguments) -> None:
    command = [sys.executable, "-m", "evl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


@torch.inference_mode()
def pack_again(source: Path, target: Path, options: StoreOptions) -> None:
    """The store ``source``, float32 tokens, in another form and type."""
    store = FeatureStore(source)
    description = replace(store.description, options=options)
    target.mkdir()
    write_description(target, description)
    if options.form == "tokens":
        shutil.copy(source / PROJECTIONS, target / PROJECTIONS)
    unpacker = open_unpacker(store)
    for covers in shard_ranges(description):
        split = store.splits[covers.split]
        assert not split.damaged
        clips = split.read(covers.pairs)
        items = [ShardItem(*pair, split.samples[pair[0]], split.num_valid(*pair)) for pair in covers.pairs]
        blocks = description.blocks
        tokens = {one: pack_tokens(clips.tokens[one].values, options.dtype, options.scale) for one in blocks}
        maps = {}
        if options.form == "maps":
            features = zip(unpacker.encoder.taps, unpacker(clips), strict=True)
            maps = {tap: pack_maps(packed_maps(one.maps, torch.float32), options.dtype) for tap, one in features}
        write_shard(target, description, covers.number, items, tokens, maps)
    write_index(target)


def write(options, found: dict[str, list[float]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine(torch.device("cpu"))
    path = RESULTS / f"store-accuracy-{options.name}"
    settings = {name: getattr(options, name) for name in ("decoder", "videos", "steps", "clips_per_video")}
    content = dict(machine=machine, evl=__version__, **settings, top1=found)
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    epochs = options.steps * BATCH_SIZE / options.videos
    about = (
        f"{options.decoder}; `motions`, {options.videos} videos to train on, {DEFAULT.test} to judge by; "
        f"{options.steps} steps of {BATCH_SIZE} clips, {epochs:.1f} epochs; "
        f"stores of {options.clips_per_video} clips a video. "
        f"{machine['device']}, evl {__version__}, torch {torch.__version__}."
    )
    rows = []
    for name, values in found.items():
        mean, low, high = mean_interval(values) if len(values) > 1 else (values[0], 0, 100)
        each = []
        for top1 in values:
            bounds = wilson_interval(round(top1 * DEFAULT.test / 100), DEFAULT.test)
            each.append(f"{top1:.1f} ({bounds[0]:.1f}–{bounds[1]:.1f})")
        rows.append((name, f"{mean:.1f} ({low:.1f}–{high:.1f})", ", ".join(each)))
    head = ("trained on", "top-1, mean over initial values (95 %)", "each (95 % over videos)")
    lines = [about, "", *table(head, rows)]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
