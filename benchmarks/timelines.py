"""A baseline for timelines, on made videos: python benchmarks/timelines.py; writes results/timelines-NAME.json

Untrimmed videos of `motions` (evl.datasets.untrimmed) are made in FOLDER, and the features of training clips are
stored once: segments whose ends move, and background. For each seed a decoder is trained on the store, thresholds are
chosen on val, and the timelines of test are judged, with these thresholds and with others. docs/evidence.md has the
result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path

import torch

import evl
from evl._version import __version__
from evl.bench.measure import describe_machine
from evl.config import RunConfig, replace
from evl.datasets.untrimmed import COUNTS, MANIFEST, make_untrimmed
from evl.evaluation import mean_interval
from evl.runtime.text import table

RESULTS = Path(__file__).parent / "results"
SHOWN = ("map_30_70", "map_50_95", "map_50", "f1_10", "f1_25", "f1_50", "edit", "frame_accuracy", "frame_precision",
         "frame_recall", "events_found", "delay", "live_delay", "chance")  # fmt: skip
DECODERS = {
    "side": {"taps": "all"},
    "evl": {"taps": "last 2", "num_heads": 8, "mlp_dropout": 0.0, "head_dropout": 0.0},
    "linear": {"taps": "last 1"},
}
RATES = {"side": 1e-3, "evl": 3e-3, "linear": 2e-2}


def config_of(manifest: Path, decoder: str, steps: int, seed: int) -> RunConfig:
    """The settings of `evl demo`, with windows of 15 frames (1.25 s)."""
    is_linear = decoder == "linear"
    return replace(
        RunConfig(),
        backbone={"name": "evl_clip_tiny"},
        data={"path": str(manifest), "background": 1.0, "background_margin": 0.25},
        model={"decoder": decoder, **DECODERS[decoder]},
        clip={"num_frames": 8, "stride": 2},
        augment={"rand_augment": None, "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0,
                 "jitter_seconds": 0.3},
        training={"steps": steps * (5 if is_linear else 1), "batch_size": 16, "lr": RATES[decoder],
                  "label_smoothing": 0.1, "seed": seed, "precision": "fp32", "eval_every": 0,
                  "weight_decay": 0.0 if is_linear else 0.05},
        evaluation={"num_clips": 1, "num_crops": 1},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--folder", type=Path, help="where videos, store and runs are kept, and found again; default: a temporary one"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--clips", type=int, default=4, help="stored training clips of each segment")
    parser.add_argument("--decoders", nargs="*", default=["side", "evl"], choices=DECODERS)
    for split, count in COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=count)
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        manifest = folder / "videos" / MANIFEST
        if not manifest.exists():
            make_untrimmed(folder / "videos", {split: getattr(options, split) for split in COUNTS})
        store = folder / "store"
        if not (store / "index.parquet").exists():
            rows = manifest.read_text().splitlines(keepends=True)
            (manifest.with_name("learn.csv")).write_text("".join(row for row in rows if not row.endswith("test\n")))
            config = config_of(manifest.with_name("learn.csv"), "side", options.steps, 0)
            evl.extract(out=store, config=config, clips_per_video=options.clips, yes=True, progress=False)
        found: dict[str, list[dict]] = {}
        for decoder in options.decoders:
            for seed in range(options.seeds):
                for name, scores in one_run(folder, manifest, store, decoder, options.steps, seed).items():
                    found.setdefault(name, []).append(scores)
                    print(f"seed {seed}  {name}  " + "  ".join(f"{one} {scores[one]:.1f}" for one in SHOWN), flush=True)
    write(options, found)


def one_run(folder: Path, manifest: Path, store: Path, decoder: str, steps: int, seed: int) -> dict[str, dict]:
    """What was judged → scores on test."""
    run = folder / f"{decoder}-{seed}"
    config = replace(config_of(manifest, decoder, steps, seed), data={"path": None, "features": str(store)})
    if not (run / "model.json").exists():
        evl.train(config, run, progress=False)
    if not (run / "timeline/metrics.json").exists():
        evl.evaluate_timelines(run, manifest, choose_thresholds=True, out=run / "timeline", progress=False)
    lines = sorted((run / "timeline/scores").glob("*.parquet"))
    chosen = evl.evaluate_timelines(None, manifest, scores=lines, progress=False)
    usual = evl.evaluate_timelines(None, manifest, scores=lines, on=0.5, off=0.3, progress=False)
    many = evl.evaluate_timelines(None, manifest, scores=lines, on=0.1, off=0.05, progress=False)
    names = ("thresholds from val", "on 0.5, off 0.3", "on 0.1, off 0.05")
    return {f"{decoder}, {name}": one.to_dict() | {"classes": one.classes()}
            for name, one in zip(names, (chosen, usual, many), strict=True)}  # fmt: skip


def write(options: argparse.Namespace, found: dict[str, list[dict]]) -> None:
    rows = []
    for name, runs in found.items():
        cells = []
        for metric in SHOWN:
            values = [one[metric] for one in runs]
            text = f"{sum(values) / len(values):.1f}" if "delay" not in metric else f"{sum(values) / len(values):.2f}"
            if len(values) > 1 and "delay" not in metric and metric != "chance":
                _, low, high = mean_interval(values)
                text += f" ({low:.1f}–{high:.1f})"
            cells.append(text)
        rows.append([name, *cells])
    print("\n".join(table(("", *SHOWN), rows)))
    content = {
        "evl": __version__, "machine": describe_machine(torch.device("cpu")), "found": found,
        "options": {key: str(value) for key, value in vars(options).items() if key != "folder"},
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"timelines-{options.name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
