"""Learning rates with few videos, as most people have: python benchmarks/few_videos.py PICTURES; writes JSON.

All on frozen features of the embedded encoder, 8 frames, 400 steps of 16 clips (30 epochs of 200 videos). Tasks:
- camera: 8 motions of a camera (pan, zoom, turn) over photographs, 192 videos; judged on other photographs.
- left, right: two of them, 60 videos.
- motion, object: 224 videos of `motions`, judged on its val.

PICTURES: folders with the photographs, such as those of the packages scikit-image, scikit-learn and matplotlib.
docs/decisions.md says what it is for.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
import torch
from motions_controls import RESULTS
from motions_decoders import CALM, EVL_ALL, PLAIN, SIDE, data_of
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from evl._version import __version__
from evl.backbones import create_backbone
from evl.bench.measure import describe_machine
from evl.config import RunConfig, replace
from evl.demo.compare import Contender, train_contenders
from evl.demo.contenders import CHANGES, Size, blocks_of, config_of
from evl.demo.results import ATTENTIVE, EVL, LINEAR
from evl.streams.memory import extract, threads
from evl.training.learners import with_taps
from evl.types import Sample

TRAIN = ("astronaut", "brick", "camera", "chelsea", "china", "coffee", "coins", "grass", "motorcycle_left", "ihc")
TEST = ("flower", "grace_hopper", "gravel", "hubble_deep_field", "motorcycle_right", "retina", "rocket")
TASKS = ("camera", "left, right", "motion", "object")
CAMERA = ("left", "right", "up", "down", "in", "out", "clockwise", "counterclockwise")
NUM_FRAMES, SIZE, STEPS, FEW = 8, 64, 400, 224
EVL_USUAL = {"taps": "last 4", "num_heads": None, "mlp_dropout": 0.5, "head_dropout": 0.5}  # of evl train
# contender -> (changes of the model's settings, of the training's)
CONTENDERS = {
    "EVL, defaults until November 2026": (EVL_USUAL, {"lr": 4e-4, **PLAIN}),
    **{f"EVL, default dropout, lr {rate:g}": (EVL_USUAL, {"lr": rate}) for rate in (4e-4, 1e-3, 3e-3)},
    **{f"EVL, five blocks, lr {rate:g}": (EVL_ALL, {"lr": rate}) for rate in (1e-3, 3e-3)},
    **{f"side, d=32, lr {rate:g}": (SIDE, {"lr": rate}) for rate in (4e-4, 1e-3, 3e-3)},
    "side, default width, lr 0.001": (SIDE | {"side_width": None}, {"lr": 1e-3}),
    **{f"{ATTENTIVE}, one block, lr {rate:g}": (CHANGES[ATTENTIVE]["model"], {"lr": rate}) for rate in (1e-3, 3e-3)},
    f"{LINEAR}, lr 0.001": (CHANGES[LINEAR]["model"], {"lr": 1e-3}),
    f"{LINEAR}, lr 0.02": (CHANGES[LINEAR]["model"], CHANGES[LINEAR]["training"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--keep", type=Path, help="a folder for the videos of motions, which the next run finds there")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder, threads() as pool:
            for task, clips, samples, count in tasks(options, options.keep or Path(folder), seed):
                for name, top1 in train_and_judge(options.only, task, clips, samples, count, seed, pool):
                    found[task][name][seed] = top1
                    print(f"seed {seed}  {task}  {top1:5.1f}  {name}", flush=True)
        about = {
            "date": str(date.today()), "evl": __version__, **describe_machine(torch.device("cpu")), "steps": STEPS,
            "top1": found,
        }  # fmt: skip
        (RESULTS / f"few-videos-{options.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def tasks(options: argparse.Namespace, folder: Path, seed: int):
    """Yields (task, clips (n,T,3,H,W), samples, how many of them are to train on)."""
    rng = np.random.default_rng(seed)
    train, test = ([picture(options.pictures, name) for name in names] for names in (TRAIN, TEST))
    preprocessing = create_backbone(config_of(EVL, "motion", folder, STEPS, seed).backbone, "all").preprocessing
    mean, std = (torch.tensor(x)[:, None, None] for x in (preprocessing.mean, preprocessing.std))
    for task, classes, per_class in (("camera", CAMERA, 24), ("left, right", CAMERA[:2], 30)):
        labels = [name for name in classes for _ in range(per_class)]
        judged = [name for name in classes for _ in range(160 // len(classes))]
        clips = [clip_of(train, name, rng) for name in labels] + [clip_of(test, name, rng) for name in judged]
        if task not in options.tasks:
            continue
        yield task, (torch.stack(clips) - mean) / std, [Sample("", label=name) for name in labels + judged], len(labels)
    left = [task for task in TASKS[2:] if task in options.tasks]
    data = data_of(folder, "val", Size(FEW, 560, STEPS), seed) if left else None
    for task in left:
        yield task, data.clips.float(), data.samples[task], len(data.train_rows)


def picture(folders: list[Path], name: str) -> Tensor:
    """(3,h,w) in 0 … 1, the shorter side 160 pixels."""
    paths = sorted(path for folder in folders for path in folder.rglob(f"{name}.*") if path.suffix in (".png", ".jpg"))
    if not paths:
        raise SystemExit(f"no {name}.png or .jpg below {', '.join(map(str, folders))}")
    image = Image.open(paths[0]).convert("RGB")
    scale = 160 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def clip_of(pictures: list[Tensor], name: str, rng: np.random.Generator) -> Tensor:
    """(T,3,H,W): a shaking camera that does one thing; the middle of the clip is anywhere, so no frame shows which."""
    image = pictures[rng.integers(len(pictures))]
    _, h, w = image.shape
    speed = rng.uniform(2, 7)  # pixels of the clip between two frames
    time = np.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2 + rng.uniform(-1, 1)
    x = y = angle = np.zeros(NUM_FRAMES)
    zoom = np.full(NUM_FRAMES, rng.uniform(0.8, 1.2))
    sign = 1 if name in ("right", "down", "in", "clockwise") else -1
    if name in ("left", "right"):
        x = sign * speed * time
    elif name in ("up", "down"):
        y = sign * speed * time
    elif name in ("in", "out"):
        zoom = zoom * np.exp(sign * speed / 45 * time)
    else:
        angle = sign * speed / 30 * time
    shake = rng.normal(0, 0.7, (2, NUM_FRAMES))
    center = rng.uniform(-0.25, 0.25, 2)
    angle = angle + rng.uniform(-math.pi, math.pi) * (name in ("clockwise", "counterclockwise"))
    grids = []
    steps = torch.linspace(-SIZE / 2, SIZE / 2, SIZE)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    for t in range(NUM_FRAMES):
        cos, sin = math.cos(angle[t]) / zoom[t], math.sin(angle[t]) / zoom[t]
        px = cos * columns - sin * rows + x[t] + shake[0, t]
        py = sin * columns + cos * rows + y[t] + shake[1, t]
        grids.append(torch.stack([px * 2 / w + center[0], py * 2 / h + center[1]], -1))
    clip = F.grid_sample(
        image.expand(NUM_FRAMES, -1, -1, -1), torch.stack(grids).float(), padding_mode="reflection", align_corners=False
    )
    return clip * rng.uniform(0.7, 1.1)


def train_and_judge(names: list[str], task: str, clips: Tensor, samples, count: int, seed: int, pool):
    """Yields (contender, top-1)."""
    config = replace(config_of(EVL, "motion", Path("."), STEPS, seed), training=CALM)
    contenders: dict[str, RunConfig] = {
        name: replace(config, model=CONTENDERS[name][0], training=CONTENDERS[name][1]) for name in names
    }
    backbone = create_backbone(config.backbone, "all")
    taps, mapped = blocks_of(contenders.values(), backbone.spec)
    features = extract(with_taps(backbone, taps), clips, samples, pool, mapped=mapped)
    made = [
        Contender(name, task, one, samples, features.encoder, count, features.encoder.taps)
        for name, one in contenders.items()
    ]
    for some, how in ((False, pool), (True, None)):  # those with dropout one after another
        train_contenders([one for one in made if one.has_dropout == some], features, range(count), how)
    for one in made:
        yield one.variant, one.judge(features, range(count, len(samples))).metrics.top1


if __name__ == "__main__":
    main()
