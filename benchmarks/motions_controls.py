"""What `motions` takes to be told: python benchmarks/motions_controls.py; writes results/motions-controls-NAME.*

On the demo's frozen features, all trained and judged alike (the sizes of 'evl demo'; --seeds, --videos, --steps):
- one frame: the decoder without temporal parts, the side network, and the attentive probe, on still pictures: every
  frame of every clip as one of its own, or the first or last of each. It is, at least, what single frames give away.
- frames out of order: EVL, the side network and the attentive probe on clips whose frames are shuffled, each clip in
  one order.
- parts: EVL with one part of its local temporal module alone, and without one.
docs/evidence.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import date
from pathlib import Path

import numpy as np
import torch

from evl._version import __version__
from evl.bench.measure import describe_machine
from evl.config import replace
from evl.demo.compare import Contender, train_contenders
from evl.demo.contenders import DEFAULT, NUM_FRAMES, Size, config_of
from evl.demo.results import ATTENTIVE, EVL, SIDE
from evl.demo.run import Data, make_data
from evl.evaluation import mean_interval
from evl.runtime.text import table
from evl.streams.memory import InMemory, extract, of_frames, threads

RESULTS = Path(__file__).parent / "results"
PARTS = ("temporal_conv", "temporal_position", "cross_frame")
NONE = {part: False for part in PARTS}
WHOLE = {
    "EVL": (EVL, {}),
    "side": (SIDE, {}),
    "EVL, no temporal part": (EVL, NONE),
    **{f"EVL, {part} alone": (EVL, {other: False for other in PARTS if other != part}) for part in PARTS},
    **{f"EVL without {part}": (EVL, {part: False}) for part in PARTS},
}
SHUFFLED = {f"{name}, frames shuffled": (variant, {})
            for name, variant in (("EVL", EVL), ("attentive probe", ATTENTIVE), ("side", SIDE))}  # fmt: skip
STILL = {
    "EVL, no temporal part, any frame": (EVL, NONE),
    "attentive probe, any frame": (ATTENTIVE, {}),
    "side, any frame": (SIDE, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=DEFAULT.train)
    parser.add_argument("--steps", type=int, default=DEFAULT.steps)
    parser.add_argument("--only", help="the controls whose names begin with this")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    size = Size(train=options.videos, test=DEFAULT.test, steps=options.steps)
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder, threads() as pool:
            data = make_data(Path(folder), size, seed, quiet)
            data.decode(quiet)
            for name, top1 in one_seed(data, pool, options.only or "").items():
                found[name].append(top1)
                print(f"seed {seed}  {top1:5.1f}  {name}", flush=True)
    write(options, size, found)


def quiet(description: str, total: int) -> Callable:
    return lambda done, note="": None


def one_seed(data: Data, pool: Executor, only: str) -> dict[str, float]:
    """Control -> top-1 on motions."""
    rng = np.random.default_rng(data.seed)
    backbone, _ = data.backbone(*(SIDE,) if only == "side" else (EVL, ATTENTIVE, SIDE))
    features = extract(backbone, data.clips, data.samples["motion"], pool)
    found = results(begin(WHOLE, only), data, backbone, features, pool)
    tokens = [x.flatten(0, 1)[:, None] for x in features.tokens]
    still = InMemory(tokens, [None for _ in features.maps], backbone, (), pool)
    found |= results(begin(STILL, only), data, backbone, still, pool, num_frames=1)
    for which, t in (("first", 0), ("last", NUM_FRAMES - 1)):
        one = of_frames(features, [t] * len(data.clips))
        chosen = {f"{name.removesuffix('any frame')}{which} frame": control for name, control in STILL.items()}
        found |= results(begin(chosen, only), data, backbone, one, pool, num_frames=1)
    del features
    count = len(data.clips)
    order = torch.from_numpy(rng.permuted(np.tile(np.arange(NUM_FRAMES), (count, 1)), axis=1))
    shuffled = extract(backbone, data.clips[torch.arange(count)[:, None], order], data.samples["motion"], pool)
    return found | results(begin(SHUFFLED, only), data, backbone, shuffled, pool)


def begin(controls: dict, word: str) -> dict:
    """Those whose names begin with this word."""
    return {name: control for name, control in controls.items() if name.startswith(word)}


def results(controls, data: Data, backbone, features: InMemory, pool: Executor, num_frames=NUM_FRAMES):
    """``num_frames=1``: features of one frame a clip, or of every frame of it, each a still picture by itself."""
    per_clip = len(features) // len(data.clips)
    samples = [sample for sample in data.samples["motion"] for _ in range(per_clip)]
    train_rows, test_rows = (
        range(per_clip * rows.start, per_clip * rows.stop) for rows in (data.train_rows, data.test_rows)
    )
    contenders = [
        Contender(
            name,
            "motion",
            replace(
                config_of(variant, "motion", data.videos, data.size.steps, data.seed),
                model=changes,
                clip={"num_frames": num_frames},
            ),
            samples,
            backbone,
            len(train_rows),
            features.encoder.taps,
        )
        for name, (variant, changes) in controls.items()
    ]
    train_contenders(contenders, features.of(samples), train_rows, pool)
    return {one.variant: one.judge(features, test_rows).metrics.top1 for one in contenders}


def write(options: argparse.Namespace, size: Size, found: dict[str, list[float]]) -> None:
    """JSON and a table."""
    about = {
        "date": str(date.today()), "evl": __version__, **describe_machine(torch.device("cpu")),
        "videos": f"{size.train} to train on, {size.test} to judge by", "steps": size.steps,
        "chance": 100 / 14, "top1": found,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"motions-controls-{options.name}.json"
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    rows = []
    for name, each in found.items():
        mean = "{:.1f} ({:.1f}–{:.1f})".format(*mean_interval(each)) if len(each) > 1 else f"{each[0]:.1f}"
        rows.append((name, mean, ", ".join(f"{one:.1f}" for one in each)))
    lines = table(("control", "top-1 on motions, mean of seeds (95 % t-interval)", "each"), rows)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
