"""Augmentation with few videos: python benchmarks/augmentation.py FOLDERS --folder FOLDER; writes JSON.

Videos are written (moving_camera.py): eight camera motions over photographs, 24 of each for training, 20 over other
photographs for judging; with --task filmed ten over filmed footage, 16 of each for training, 20 over other films.
FOLDERS hold the photographs or the footage. For each augmentation, the embedded encoder's features of ten clips of each
training video are stored. Decoders are trained on them with the defaults of 'evl train', and judged.
docs/evidence.md has the result.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from found import found_before, write_found
from motions_controls import RESULTS
from moving_camera import write_camera, write_filmed

import evl

TASKS = {"camera": write_camera, "filmed": write_filmed}
NONE = {"rand_augment": None, "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
AUGMENTATIONS = {
    "crop 0.08, RandAugment": {},
    "crop 0.5, RandAugment": {"crop_area": (0.5, 1.0)},
    "crop 0.08": {"rand_augment": None},
    "crop 0.5": {"crop_area": (0.5, 1.0), "rand_augment": None},
    "none": NONE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--task", choices=TASKS, default="camera")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--decoders", nargs="+", default=["side"])
    parser.add_argument("--only", nargs="+", default=list(AUGMENTATIONS))
    parser.add_argument("--steps", type=int, help="of training; default: those of 'evl train'")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    path = RESULTS / f"augmentation-{options.name}.json"
    found = found_before(path, "top1")  # other seeds, decoders or augmentations
    for seed in options.seeds:
        folder = options.folder / str(seed)
        manifest = TASKS[options.task](folder, options.folders, seed)
        for name in options.only:
            store = folder / name.replace(", ", "-").replace(" ", "-")
            if not (store / "index.parquet").exists():
                evl.extract(
                    manifest, out=store, clips_per_video=10, yes=True, progress=False, seed=seed,
                    sampling="segment", augment=AUGMENTATIONS[name], val_path=None,
                )  # fmt: skip
            training = {"steps": options.steps} if options.steps else {}
            row = f"{name}, {options.steps} steps" if options.steps else name
            for decoder in options.decoders:
                run = store / f"run-{decoder}-{options.steps or 'usual'}"
                model = evl.train(
                    data=store, out=run, progress=False, seed=seed, model={"decoder": decoder}, training=training
                )
                found[decoder][row][str(seed)] = model.run.evaluation.top1
                print(f"seed {seed}  {decoder}  {model.run.evaluation.top1:5.1f}  {row}", flush=True)
                write_found(path, task=options.task, top1=found)


if __name__ == "__main__":
    main()
