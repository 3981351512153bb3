"""Learning rates with few videos, as most people have: python benchmarks/few_videos.py FOLDERS; writes JSON.

All on frozen features of the embedded encoder, 8 frames, 400 steps of 16 clips (30 epochs of 200 videos). Tasks:
- camera: 8 motions of a camera (pan, zoom, turn) over photographs, 192 videos; judged on other photographs.
- left, right: two of them, 60 videos.
- filmed: these 8, still and shaking, over filmed footage, 160 videos; judged on other films.
- filmed in, out: two of them, 60 videos.
- photograph and motion: 25 photographs x 8 motions = 200 classes, 5 videos of each; judged on 2 others of each.
- motion, object: 224 videos of `motions`, judged on its val.

FOLDERS: with the photographs, such as those of the packages scikit-image, scikit-learn and matplotlib, and with the
footage (moving_camera.py says which). docs/decisions.md says what it is for.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch
from found import found_before, write_found
from motions_controls import RESULTS
from motions_decoders import CALM, EVL_ALL, PLAIN, SIDE, data_of, show
from moving_camera import CAMERA, FILMED, OTHERS, TEST, TRAIN, clip_of, pictures, write_filmed
from torch import Tensor

from evl.backbones import create_backbone
from evl.config import ModelConfig, RunConfig, replace
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import read_manifest
from evl.demo.compare import Contender, read_clips, train_contenders
from evl.demo.contenders import CHANGES, Size, blocks_of, config_of
from evl.demo.results import ATTENTIVE, EVL, LINEAR
from evl.streams.memory import extract, threads
from evl.training.learners import with_taps
from evl.types import Sample

TASKS = (
    "camera", "left, right", "filmed", "filmed in, out", "photograph and motion", "motion", "object",
)  # fmt: skip
FEW = 224
EVL_USUAL = {"taps": "last 4", "num_heads": None, "mlp_dropout": 0.5, "head_dropout": 0.5}  # of evl train
TRAINING = {"lr": 1e-3, "warmup_steps": None, "clip_grad_norm": 1.0, "label_smoothing": 0.0}  # of evl train


def usual(decoder: str, training: dict | None = None, **model) -> tuple[ModelConfig, dict]:
    """The defaults of 'evl train' but for these changes."""
    return ModelConfig(decoder, **model), TRAINING | (training or {})


# contender -> (changes of the model's settings or all of them, changes of the training's)
CONTENDERS = {
    **{
        f"{name}, as evl train{how}": usual(decoder, training)
        for name, decoder in (("side", "side"), ("EVL", "evl"))
        for how, training in {
            "": {},
            ", lr 0.0003": {"lr": 3e-4},
            ", lr 0.003": {"lr": 3e-3},
            ", no warm-up": {"warmup_steps": 0},
        }.items()
    },
    "side, as evl train, d=32": usual("side", side_width=32),
    "attentive, as evl train": usual("attentive"),
    "linear, as evl train": usual("linear"),
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
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--keep", type=Path, help="a folder for videos, which the next run finds there")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    path = RESULTS / f"few-videos-{options.name}.json"
    found = found_before(path, "scores")  # other seeds, tasks or contenders
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder, threads() as pool:
            for task, clips, samples, count in tasks(options, options.keep or Path(folder), seed):
                for name, scores in train_and_judge(options, task, clips, samples, count, seed, pool):
                    found[task][name][str(seed)] = scores
                    print(f"seed {seed}  {task}  {scores}  {name}", flush=True)
                write_found(path, steps=options.steps, scores=found)


def tasks(options: argparse.Namespace, folder: Path, seed: int):
    """Yields (task, clips (n,T,3,H,W), samples, how many of them are to train on)."""
    for task, classes, train, val in (("filmed", FILMED, 16, 20), ("filmed in, out", ("in", "out"), 30, 80)):
        if task in options.tasks:
            splits = read_manifest(
                write_filmed(folder / f"{task}-{seed}", options.folders, seed, classes, train, val)
            ).splits
            samples = [*splits["train"], *splits["val"]]
            config = config_of(EVL, "motion", folder, options.steps, seed)
            preprocessing = create_backbone(config.backbone, "all").preprocessing
            clips = read_clips(samples, config.clip, preprocessing, num_workers=default_num_workers())
            yield task, clips.float(), samples, len(splits["train"])
    yield from of_photographs(options, seed)
    left = [task for task in ("motion", "object") if task in options.tasks]
    data = data_of(folder, "val", Size(FEW, 560, options.steps), seed) if left else None
    for task in left:
        yield task, data.clips.float(), data.samples[task], len(data.train_rows)


def of_photographs(options: argparse.Namespace, seed: int):
    rng = np.random.default_rng(seed)
    preprocessing = create_backbone(config_of(EVL, "motion", Path("."), 1, seed).backbone, "all").preprocessing
    mean, std = (torch.tensor(x)[:, None, None] for x in (preprocessing.mean, preprocessing.std))
    if {"camera", "left, right"} & set(options.tasks):
        train, test = (pictures(options.folders, names) for names in (TRAIN, TEST))
        for task, classes, per_class in (("camera", CAMERA, 24), ("left, right", CAMERA[:2], 30)):
            labels = [name for name in classes for _ in range(per_class)]
            judged = [name for name in classes for _ in range(160 // len(classes))]
            clips = [clip_of(train, name, rng) for name in labels] + [clip_of(test, name, rng) for name in judged]
            if task in options.tasks:
                samples = [Sample("", label=name) for name in labels + judged]
                yield task, (torch.stack(clips) - mean) / std, samples, len(labels)
    if (task := "photograph and motion") in options.tasks:
        names = (*TRAIN, *TEST, *OTHERS)
        scenes = dict(zip(names, pictures(options.folders, names), strict=True))
        pairs = [(name, motion) for count in (5, 2) for name in names for motion in CAMERA for _ in range(count)]
        clips = torch.stack([clip_of([scenes[name]], motion, rng) for name, motion in pairs])
        samples = [Sample("", label=f"{name} {motion}") for name, motion in pairs]
        yield task, (clips - mean) / std, samples, 5 * len(names) * len(CAMERA)


def train_and_judge(options: argparse.Namespace, task: str, clips: Tensor, samples, count: int, seed: int, pool):
    """Yields (contender, its scores in percent; ``train``: hits among the training clips, in tenths of the steps)."""
    config = replace(config_of(EVL, "motion", Path("."), options.steps, seed), training=CALM)
    contenders: dict[str, RunConfig] = {}
    for name in options.only:
        model, training = CONTENDERS[name]
        if isinstance(model, ModelConfig):
            contenders[name] = replace(dataclasses.replace(config, model=model), training=training)
        else:
            contenders[name] = replace(config, model=model, training=training)
    backbone = create_backbone(config.backbone, "all")
    taps, mapped = blocks_of(contenders.values(), backbone.spec)
    features = extract(with_taps(backbone, taps), clips, samples, pool, mapped=mapped)
    made = [
        Contender(name, task, one, samples, features.encoder, count, features.encoder.taps)
        for name, one in contenders.items()
    ]
    for some, how in ((False, pool), (True, None)):  # those with dropout one after another
        if chosen := [one for one in made if one.has_dropout == some]:
            train_contenders(chosen, features, range(count), how, show)
    for one in made:
        metrics = one.judge(features, range(count, len(samples))).metrics
        hits = [part.mean() for part in np.array_split([point[3] for point in one.learner.curve], 10)]
        scores = {"top1": metrics.top1, "train": [round(float(share), 1) for share in hits]}
        yield one.variant, scores | ({"top5": metrics.top5} if len(metrics.confusion) > 20 else {})


if __name__ == "__main__":
    main()
