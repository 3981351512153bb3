"""Decoders on `motions`, tuned on val and judged on test: python benchmarks/motions_decoders.py SET; writes JSON.

All contenders of a set are trained on the same frozen features and batches, as in 'evl demo'. Sets:
- tune: learning rates, warm-up with clipping, weight decay, for every decoder alike. Judge these with --split val.
- best: what was best on val, to be judged on test (--full: the sizes of 'evl demo --full', five seeds).
- norms: the side network's norms, on val.
- parts: the side network without one of its parts, or with one more.
- taps: the side network on some of the blocks.
--only NAME ... takes some contenders of the set. docs/evidence.md and docs/side.md say what came out.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import date
from pathlib import Path

import torch
from found import found_before, write_found
from motions_controls import RESULTS, quiet
from side_trials import PARTS

from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.datasets.motions import make_motions
from evl.demo.compare import Contender, train_contenders
from evl.demo.contenders import CHANGES, DEFAULT, FULL, Size, blocks_of
from evl.demo.results import ATTENTIVE, EVL, TASKS
from evl.demo.run import Data
from evl.streams.memory import InMemory, extract, threads
from evl.training.learners import with_taps

SIDE = {"decoder": "side", "taps": "all", "side_width": 32}
PLAIN = {"warmup_steps": 0, "clip_grad_norm": None}
CALM = {"warmup_steps": 50, "clip_grad_norm": 1.0}
DECAY = {"weight_decay": 0.15}
EVL_ALL = {"taps": "all"}


def tuning() -> dict[str, tuple[dict, dict]]:
    """Contender -> (changes of the model's settings, of the training's)."""
    models = {"EVL": {}, "EVL, five blocks": EVL_ALL, "side": SIDE, ATTENTIVE: CHANGES[ATTENTIVE]["model"]}
    rates = {"EVL": (1e-3, 3e-3, 6e-3), "EVL, five blocks": (1e-3, 3e-3), "side": (1.5e-3, 3e-3, 6e-3)}
    found = {}
    for name, model in models.items():
        for rate in rates.get(name, (1e-3, 3e-3)):
            for how, calm in (("", PLAIN), (", calm", CALM)):
                found[f"{name}, lr {rate:g}{how}"] = (model, {"lr": rate, **calm})
    found["side, lr 0.003, calm, decay 0.15"] = (SIDE, {"lr": 3e-3, **CALM, **DECAY})
    found["side, lr 0.003, decay 0.15"] = (SIDE, {"lr": 3e-3, **PLAIN, **DECAY})
    found["EVL, lr 0.003, calm, decay 0.15"] = ({}, {"lr": 3e-3, **CALM, **DECAY})
    return found


def norms() -> dict[str, tuple[dict, dict]]:
    found = {
        f"side, {norm}": (SIDE | {"side_norm": norm}, {"lr": 3e-3, **PLAIN, **DECAY}) for norm in ("channel", "batch")
    }
    return {"EVL": ({}, PLAIN), **found}


def best() -> dict[str, tuple[dict, dict]]:
    """Each decoder with the settings that were best on val (set ``tune``)."""
    side = {"lr": 1.5e-3, **CALM}
    return {
        "EVL": ({}, CALM),
        "EVL, five blocks": (EVL_ALL, CALM),
        "side": (SIDE, side),
        "side, causal": (SIDE | {"causal": True}, side),
        ATTENTIVE: (CHANGES[ATTENTIVE]["model"], CALM),
    }


def trial(kind: str = "TrialSide", **options) -> tuple[dict, dict]:
    model = {"decoder": f"side_trials:{kind}", "taps": list(range(6)), "head_dropout": 0.0, "options": options}
    return model, {"lr": 1.5e-3, **CALM}


def parts() -> dict[str, tuple[dict, dict]]:
    without = {f"without {part}": trial(without=[part]) for part in PARTS}
    added = {
        "with a difference gate": trial(gate=True),
        "with positions in time": trial(time_positions=True),
        "with a norm in front of the attention": trial(attention_norm="channel"),
        "with self-similarity of block 2": trial(similarity=2),
        "with EVL's cross-frame attention": trial("CrossedTrialSide"),
    }
    return {"side": (SIDE, {"lr": 1.5e-3, **CALM}), **without, **added}


def taps() -> dict[str, tuple[dict, dict]]:
    chosen = {"all": "all", **{f"last {m}": f"last {m}" for m in (4, 3, 2, 1)}, "0, 2, 4": [0, 2, 4], "0, 5": [0, 5]}
    return {f"side, {name}": (SIDE | {"taps": taps}, {"lr": 1.5e-3, **CALM}) for name, taps in chosen.items()}


SETS: dict[str, Callable[[], dict[str, tuple[dict, dict]]]] = {
    "tune": tuning,
    "best": best,
    "norms": norms,
    "parts": parts,
    "taps": taps,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["motion"])
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--videos", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--keep", type=Path, help="a folder for videos, which the next run finds there")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    usual = FULL if options.full else DEFAULT
    size = Size(options.videos or usual.train, usual.test, options.steps or usual.steps)
    contenders = {name: one for name, one in SETS[options.set]().items() if not options.only or name in options.only}
    path = RESULTS / (re.sub("[^a-z0-9-]", "-", f"motions-{options.set}-{options.name}".lower()) + ".json")
    found = found_before(path, "top1")  # other seeds or contenders of the same set
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder, threads() as pool:
            data = data_of(options.keep or Path(folder), options.split, size, seed)
            for task, name, top1 in one_seed(data, contenders, options.tasks, pool, Path(folder)):
                found[task][name][str(seed)] = top1
                print(f"seed {seed}  {task}  {top1:5.1f}  {name}", flush=True)
        write(path, options, size, found)


def data_of(folder: Path, split: str, size: Size, seed: int) -> Data:
    """The videos of a seed, decoded."""
    videos = folder / f"{split}-{size.train}-{seed}"
    clips = videos / "clips.pt"
    if not clips.exists():
        make_motions(videos, {"train": size.train, split: size.test}, seed=seed, workers=2)
        data = Data(videos, size, seed)
        data.decode(quiet)
        torch.save(data.clips, clips)
    data = Data(videos, size, seed)
    data.clips = torch.load(clips)
    return data


def one_seed(data: Data, contenders: dict, tasks: list[str], pool: Executor, scratch: Path):
    """Yields (task, contender, top-1)."""
    features = features_of(data, [config_of(data, tasks[0], *one) for one in contenders.values()], pool, scratch)
    backbone, data.clips, count = features.encoder, None, len(data.train_rows)
    made = [
        Contender(name, task, config_of(data, task, *one), data.samples[task], backbone, count, backbone.taps)
        for task in tasks
        for name, one in contenders.items()
    ]
    train_contenders(made, features, data.train_rows, pool, show)
    for one in made:
        yield one.task, one.variant, one.judge(features, data.test_rows).metrics.top1


def show(step: int) -> None:
    if step % 200 == 0:
        print(f"step {step}", flush=True)


def features_of(data: Data, configs: Sequence[RunConfig], pool: Executor, scratch: Path) -> InMemory:
    """The features that these decoders read, in a file of ``scratch``, so that the system may take their memory."""
    backbone = create_backbone(configs[0].backbone, "all")
    taps, mapped = blocks_of(configs, backbone.spec)
    samples, file = data.samples["motion"], scratch / "features.pt"
    features = extract(with_taps(backbone, taps), data.clips, samples, pool, mapped=mapped)
    torch.save((features.tokens, features.maps), file)
    return InMemory(*torch.load(file, mmap=True), features.encoder, samples, pool)


def config_of(data: Data, task: str, model: dict, training: dict) -> RunConfig:
    return replace(data.config(EVL, task), model=model, training=training)


def write(path: Path, options: argparse.Namespace, size: Size, found: dict) -> None:
    videos = f"{size.train} to train on, {size.test} of {options.split} to judge by"
    write_found(path, set=options.set, videos=videos, steps=size.steps, top1=found)


if __name__ == "__main__":
    main()
