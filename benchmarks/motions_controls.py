"""What `motions` can be told by, without what it is about: python benchmarks/motions_controls.py FOLDER --seeds 3

On the videos, features and settings of `evl demo`, for which motion and which object: EVL without local temporal module
on a single frame (the first, a middle one, the last); EVL on clips whose frames are shuffled, each clip in an order of
its own, in training and judging; and EVL with one of its three temporal parts alone, or with one of them taken away.
Prints a table with means and t-intervals over seeds (Wilson's over videos, of one seed); docs/evidence.md has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import torch
from torch import Tensor

from evl.cli.common import Bars, start_logging
from evl.config import replace
from evl.demo.compare import Contender, judge, outcome, train
from evl.demo.features import StoredFeatures, extract, of_frame, threads
from evl.demo.report.scores import score_of
from evl.demo.results import EVL, TASKS, Outcome
from evl.demo.run import DEFAULT, NUM_FRAMES, Bar, Data, Size, make_data

PARTS = {"convolution": "temporal_conv", "positions": "temporal_position", "cross-frame attention": "cross_frame"}
NOTHING = dict.fromkeys(PARTS.values(), False)
STILL = {f"frame {t + 1} of {NUM_FRAMES} alone": t for t in (0, NUM_FRAMES // 2, NUM_FRAMES - 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=DEFAULT.train)
    parser.add_argument("--test", type=int, default=DEFAULT.test)
    parser.add_argument("--steps", type=int, default=DEFAULT.steps)
    told = parser.parse_args()
    size = Size(told.videos, told.test, told.steps)
    start_logging()
    outcomes: list[Outcome] = []
    with Bars("") as bars, threads() as pool:
        for seed in range(told.seeds):
            videos = told.folder.absolute() / f"motions-seed-{seed}"
            outcomes += controls(videos, size, seed, pool, lambda description, total: bars.add(description, total).to)
    print_table(outcomes)


def controls(videos: Path, size: Size, seed: int, pool: Executor, bar: Bar) -> list[Outcome]:
    """Every control of one seed, on both tasks."""
    data = make_data(videos, size, seed, bar)
    data.decode(bar)
    backbone = data.backbone(EVL)
    features = extract(backbone, data.clips, pool, progress=bar("features", len(data.clips)))

    def run(features: StoredFeatures, variants: dict[str, dict]) -> Iterator[Outcome]:
        contenders = [
            Contender(name, task, replace(data.config(EVL, task), **changes), data.samples[task], backbone)
            for name, changes in variants.items()
            for task in TASKS
        ]
        train(contenders, features, data.train_rows, pool, bar(f"training {', '.join(variants)}", size.steps))
        for one in contenders:
            yield outcome(one, judge(one, features, data.test_rows), None)

    alone = {f"{name} alone": {"model": NOTHING | {part: True}} for name, part in PARTS.items()}
    without = {f"without {name}": {"model": {part: False}} for name, part in PARTS.items()}
    found = [*run(features, {EVL: {}}), *run(features, alone), *run(features, without)]
    for name, t in STILL.items():
        found += run(of_frame(features, t), {name: {"model": NOTHING, "clip": {"num_frames": 1}}})
    del features
    features = extract(backbone, shuffled(data, seed), pool, progress=bar("features, shuffled", len(data.clips)))
    return [*found, *run(features, {"frames shuffled in time": {}})]


def shuffled(data: Data, seed: int) -> Tensor:
    """The clips, the frames of each in a random order of its own."""
    n, t = data.clips.shape[:2]
    order = torch.rand(n, t, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return data.clips[torch.arange(n)[:, None], order]


def print_table(outcomes: list[Outcome]) -> None:
    print(f"| control | {' | '.join(TASKS)} |\n|---|{'---|' * len(TASKS)}")
    for name in dict.fromkeys(one.variant for one in outcomes):
        cells = []
        for task in TASKS:
            score = score_of([one for one in outcomes if (one.variant, one.task) == (name, task)])
            cells.append(f"{score.percent} ({score.interval})")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{outcomes[0].evaluation.protocol}, {len({one.seed for one in outcomes})} seeds")


if __name__ == "__main__":
    main()
