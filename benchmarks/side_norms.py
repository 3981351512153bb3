"""The side network's norms on `motions`' val: python benchmarks/side_norms.py; writes results/side-norms-NAME.json

Beside EVL with the demo's settings, on the same frozen features and batches. --norms, --seeds, --videos, --steps.
docs/side.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from concurrent.futures import Executor
from datetime import date
from pathlib import Path

import torch
from motions_controls import RESULTS, quiet

from evl._version import __version__
from evl.backbones import create_backbone
from evl.bench.measure import describe_machine
from evl.config import replace
from evl.datasets.motions import make_motions
from evl.decoders import with_start
from evl.demo.compare import Contender, train_contenders
from evl.demo.contenders import DEFAULT, Size
from evl.demo.results import EVL
from evl.demo.run import Data
from evl.streams.memory import extract, threads

EVL_NAME = "EVL, two blocks"
TRAINING = {"lr": 3e-3, "weight_decay": 0.15}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--norms", nargs="+", default=["channel", "batch"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--videos", type=int, default=DEFAULT.train)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    size = Size(train=options.videos, test=DEFAULT.test, steps=options.steps)
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder, threads() as pool:
            make_motions(folder, {"train": size.train, "val": size.test}, seed=seed, workers=2)
            data = Data(Path(folder), size, seed)
            data.decode(quiet)
            for name, top1 in one_seed(data, options.norms, pool).items():
                found[name].append(top1)
                print(f"seed {seed}  {top1:5.1f}  {name}", flush=True)
    about = {
        "date": str(date.today()), "evl": __version__, **describe_machine(torch.device("cpu")),
        "videos": f"{size.train} to train on, {size.test} of val to judge by", "steps": size.steps, "width": 32,
        "chance": 100 / 14, "top1": found,
    }  # fmt: skip
    (RESULTS / f"side-norms-{options.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def one_seed(data: Data, norms: list[str], pool: Executor) -> dict[str, float]:
    """Decoder -> top-1 on motions."""
    config = data.config(EVL, "motion")
    side = {"decoder": "side", "taps": "all", "side_width": 32}
    configs = {EVL_NAME: config} | {
        f"side network, {norm}": replace(config, model=side | {"side_norm": norm}, training=TRAINING) for norm in norms
    }
    backbone = create_backbone(config.backbone, with_start("all"))
    features = extract(backbone, data.clips, data.samples["motion"], pool)
    contenders = [
        Contender(name, "motion", one, data.samples["motion"], backbone, len(data.train_rows), backbone.taps)
        for name, one in configs.items()
    ]
    train_contenders(contenders, features, data.train_rows, pool)
    return {one.variant: one.judge(features, data.test_rows).metrics.top1 for one in contenders}


if __name__ == "__main__":
    main()
