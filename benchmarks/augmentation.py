"""Augmentation with few videos: python benchmarks/augmentation.py PICTURES --folder FOLDER; writes JSON.

Videos of eight camera motions over photographs (benchmarks/few_videos.py) are written, 24 of each for training, 20
over other photographs for judging. For each augmentation, the embedded encoder's features of ten clips of each training
video are stored. Decoders are trained on them with the defaults of 'evl train', and judged.
docs/evidence.md has the result.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from datetime import date
from pathlib import Path

import av
import numpy as np
import torch
from few_videos import CAMERA, TEST, TRAIN, clip_of, picture
from motions_controls import RESULTS

import evl
from evl._version import __version__
from evl.bench.measure import describe_machine

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
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--decoders", nargs="+", default=["side"])
    parser.add_argument("--only", nargs="+", default=list(AUGMENTATIONS))
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for seed in options.seeds:
        folder = options.folder / str(seed)
        manifest = folder / "camera.csv"
        if not manifest.exists():
            write_videos(folder, options.pictures, manifest, seed)
        for name in options.only:
            store = folder / name.replace(", ", "-").replace(" ", "-")
            if not (store / "index.parquet").exists():
                evl.extract(
                    manifest, out=store, clips_per_video=10, yes=True, progress=False, seed=seed,
                    sampling="segment", augment=AUGMENTATIONS[name], val_path=None,
                )  # fmt: skip
            for decoder in options.decoders:
                model = evl.train(data=store, out=store / f"run-{decoder}-{seed}", progress=False, seed=seed,
                                  model={"decoder": decoder})  # fmt: skip
                found[decoder][name][seed] = model.run.evaluation.top1
                print(f"seed {seed}  {decoder}  {found[decoder][name][seed]:5.1f}  {name}", flush=True)
        about = {
            "date": str(date.today()), "evl": __version__, **describe_machine(torch.device("cpu")), "top1": found
        }  # fmt: skip
        (RESULTS / f"augmentation-{options.name}.json").write_text(json.dumps(about, indent=1) + "\n")


def write_videos(folder: Path, pictures: list[Path], manifest: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = []
    for split, names, count in (("train", TRAIN, 24), ("val", TEST, 20)):
        images = [picture(pictures, name) for name in names]
        for label in CAMERA:
            for i in range(count):
                path = folder / "videos" / f"{split}-{label}-{i}.mp4"
                frames = (clip_of(images, label, rng).clamp(0, 1) * 255).byte().movedim(1, -1).numpy()
                with av.open(str(path), "w") as file:
                    stream = file.add_stream("h264", rate=8, width=frames.shape[2], height=frames.shape[1])
                    stream.options = {"crf": "18"}
                    for frame in frames:
                        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
                    file.mux(stream.encode())
                rows.append((f"videos/{path.name}", label, split))
    with open(manifest, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])


if __name__ == "__main__":
    main()
