"""Records what small runs of every kind come to, and compares two records: for changes that must not change numbers.

    python scripts/record_runs.py record FOLDER RECORD.json      # some minutes; on one machine, with the same threads
    python scripts/record_runs.py compare BEFORE.json AFTER.json

Everything goes through the command line, so that a record can be made on any commit. A record holds, for every run
folder: losses, the hash and sums of the trained weights, scores, and the scores of every predicted video.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import safetensors.numpy

SETTINGS = [
    "backbone.image_size=32", "model.taps=last 2", "model.mlp_dropout=0.1", "model.head_dropout=0.1",
    "clip.num_frames=3", "clip.stride=2", "training.steps=12",
    "training.batch_size=4", "training.eval_every=6", "training.save_every=4", "training.log_every=2",
    "training.keep_last=9", "evaluation.num_clips=2", "evaluation.batch_size=3",
]  # fmt: skip
VIDEOS = ["data.num_workers=1", "data.val_fraction=0.34"]
RATE = "training.lr=1e-3"
VARIANTS = {
    "attentive": ["model.decoder=attentive", "model.probe_blocks=2"],
    "linear": ["model.decoder=linear"],
    "zero-shot-start": ["model.zero_shot_start=true", "training.accumulation=2"],
    "segment": ["clip.sampling=segment", "training.clip_grad_norm=0.5", "training.warmup_steps=3"],
}
GRID = ["training.lr=1e-3,3e-3", "model.temporal_conv=true,false"]
PROBES = ["model.decoder=attentive", "model.probe_blocks=1", "training.lr=1e-3,3e-3,1e-2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record")
    one.add_argument("folder", type=Path)
    one.add_argument("record", type=Path)
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        sys.exit(compare(*(json.loads(path.read_text()) for path in (arguments.before, arguments.after))))
    found = record(arguments.folder.absolute())
    arguments.record.write_text(json.dumps(found, indent=1))


def record(folder: Path) -> dict[str, object]:
    folder.mkdir(parents=True, exist_ok=True)
    data, damaged = folder / "videos", folder / "with-damage"
    if not data.exists():
        make_videos(data)
    shutil.copytree(data, damaged)
    (damaged / "car" / "broken.mp4").write_bytes(b"no video" * 100)
    runs = folder / "runs"
    backbone = ["--backbone", "evl_clip_tiny"]
    options = [*backbone, "--set", *SETTINGS, *VIDEOS]

    def train(name: str, *, source: Path = data, settings=(), before=("-m", "evl"), codes=(0,)) -> None:
        refused = (
            "model.mlp_dropout" if "model.decoder=linear" in settings else None
        )  # which a linear probe does not have
        shared = [one for one in options if one.partition("=")[0] != refused]
        call(*before, "train", "--data", source, "--out", runs / name, *shared, RATE, *settings, codes=codes)

    train("live")
    for name, settings in VARIANTS.items():
        train(name, settings=settings)
    train("damaged", source=damaged, settings=["data.max_damaged_share=0.5"], codes=(0, 1))
    train("two-processes", before=("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "evl"))
    resume(runs / "live", runs / "resumed")
    for dtype, extra in (("float32", ["--clips-per-video", "3"]), ("int8", ["--frames", "6", "--form", "maps"])):
        store = folder / f"store-{dtype}"
        call("-m", "evl", "extract", "--data", data, "--out", store, *options, "--dtype", dtype, *extra)
        own = "--features", store
        call("-m", "evl", "train", *own, "--out", runs / f"store-{dtype}", "--set", *SETTINGS, RATE)
    store = "--features", folder / "store-float32"
    resume(runs / "store-float32", runs / "store-resumed")
    call("-m", "evl", "sweep", *store, "--out", runs / "sweep-store", "--set", *SETTINGS, *GRID)
    call("-m", "evl", "sweep", *store, "--out", runs / "sweep-probes", "--set", *SETTINGS, *PROBES)
    call("-m", "evl", "sweep", "--data", data, "--out", runs / "sweep-live", *options, *GRID)
    few = ["--shots", "1,2", "--draws", "2", "--keep-runs"]
    call("-m", "evl", "train", *store, *few, "--out", runs / "few-shot", "--set", *SETTINGS, RATE)
    call("-m", "evl", "demo", "--out", runs / "demo", "--videos", "112", "--steps", "10")
    found: dict[str, object] = {}
    for card in sorted(runs.rglob("model.json")):
        name = card.parent.relative_to(runs).as_posix()
        if name.startswith("demo/"):  # below a folder named by date and time
            name = "demo/" + name.split("/", 2)[2]
        found[name] = describe(card.parent)
    sources = {"live": ("--data", data), "store": store}
    for name, source in sources.items():
        command = ["-m", "evl", "evaluate", runs / "live", *source, "--out", folder / f"evaluated-{name}", "--json"]
        found[f"evaluate {name}"] = strip(json.loads(call(*command)), folder)
        vectors = folder / f"{name}.npy"
        call("-m", "evl", "embed", runs / "live", *source, "--out", vectors)
        found[f"embed {name}"] = summary({"vectors": np.load(vectors)})
    first = sorted(data.rglob("*.mp4"))[:3]
    found["predict"] = strip(json.loads(call("-m", "evl", "predict", runs / "live", *first, "--json")), folder)
    return found


def make_videos(folder: Path) -> None:
    """Three motions, nine videos each, of a bright square on noise, under names that the embedded CLIP knows. Gray, and
    written as luma: libswscale, which converts colors, rounds by where its buffers lie, and two runs would differ."""
    rng = np.random.default_rng(0)
    for name, (dy, dx) in {"car": (-1, 0), "dog": (0, 1), "tree": (0, 0)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(9):
            frames = rng.integers(0, 80, (14, 48, 64)).astype(np.uint8)
            y, x = rng.integers(14, 24), rng.integers(8, 36)
            for t, frame in enumerate(frames):
                top, left = y + dy * t, x + dx * t
                frame[max(0, top) : top + 12, left : left + 12] = 220
            write(folder / name / f"{number}.mp4", frames)


def write(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        height, width = frames.shape[1:]
        for frame in frames:
            planes = np.concatenate([frame, np.full((height // 2, width), 128, np.uint8)])  # I420: no color
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def resume(run: Path, out: Path) -> None:
    """The run as it was after step 4, and on from there."""
    shutil.copytree(run, out)
    for checkpoint in sorted((out / "checkpoints").iterdir())[1:]:
        checkpoint.unlink()
    for name in ("model.json", "model.safetensors"):
        (out / name).unlink()
    call("-m", "evl", "train", "--out", out, "--resume")


def call(*words, codes: tuple[int, ...] = (0,)) -> str:
    """Standard output of ``python WORDS``."""
    print("·", *words[:8], file=sys.stderr, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)
    if done.returncode not in codes:
        sys.exit(f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def describe(run: Path) -> dict[str, object]:
    """Losses, weights and scores of one run folder, as far as it has them."""
    found: dict[str, object] = {"weights": summary(safetensors.numpy.load_file(run / "model.safetensors"))}
    metrics = run / "metrics.jsonl"
    if metrics.is_file():
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        found["losses"] = [line["loss"] for line in lines if "loss" in line]
        found["validation"] = [line["val_top1"] for line in lines if "val_top1" in line]
    scores = json.loads((run / "model.json").read_text())["scores"] or {}
    found["scores"] = {name: value for name, value in scores.items() if isinstance(value, float | int)}
    for name in ("train.csv", "val.csv"):
        if (run / name).is_file():
            with open(run / name, newline="") as file:
                paths = ["/".join(Path(row["path"]).parts[-2:]) for row in csv.DictReader(file)]
            found[name] = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16]
    return found


def summary(tensors: dict[str, np.ndarray]) -> dict[str, object]:
    """A hash of all bits, and for every tensor the sum and the root of the sum of squares."""
    whole = hashlib.sha256()
    sums = {}
    for name, value in sorted(tensors.items()):
        whole.update(name.encode() + str(value.dtype).encode() + value.tobytes())
        wide = value.astype(np.float64)
        sums[name] = [float(wide.sum()), float(math.sqrt((wide**2).sum()))]
    return {"hash": whole.hexdigest()[:16], "sums": sums}


def strip(value, folder: Path):
    """Without the folder's own name in its texts."""
    return json.loads(json.dumps(value).replace(str(folder), ""))


def compare(before: dict, after: dict) -> int:
    """Prints what is equal, what is near, and what differs; 1 if anything is more than 1e-5 apart, or missing."""
    failed = 0
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            print(f"{name}: only {'after' if name in after else 'before'}")
            failed = 1
            continue
        apart = distance(before[name], after[name])
        print(f"{name}: {'equal' if apart == 0 else f'apart by {apart:.2g}'}")
        failed |= apart > 1e-5
    return failed


def distance(one, other) -> float:
    """0 where all is equal to the bit; else the largest relative difference of numbers (hashes of numbers count as the
    smallest, since the numbers stand beside them); infinite where anything else differs."""
    if one == other:
        return 0.0
    if isinstance(one, dict) and isinstance(other, dict):
        if not one.keys() <= other.keys():  # what only the later record has is new, and no difference
            return math.inf
        if "hash" in one and "sums" in one:
            return max(1e-16, distance(one["sums"], other["sums"]))
        return max(distance(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(distance, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) / max(1.0, abs(one), abs(other))
    return math.inf


if __name__ == "__main__":
    main()
