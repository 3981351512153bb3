"""Makes a set of videos that differ in the direction of time alone: python benchmarks/time_arrow.py FOLDER

The demo's growing dots, forwards and backwards: two classes, 60 videos each to train and 24 to judge, and a config
for 'evl train --config FOLDER/config.yaml'. docs/probes.md says what decoders make of it.
"""

import sys
from pathlib import Path

import numpy as np

from evl.config import replace
from evl.demo.run import demo_config
from evl.demo.videos import draw_video, write_h264

PER_CLASS = {"train": 60, "val": 24}


def main(folder: Path) -> None:
    for number, (split, count) in enumerate(PER_CLASS.items()):
        for step, name in ((1, "growing"), (-1, "shrinking")):
            (folder / "videos" / split / name).mkdir(parents=True)
            for i in range(count):
                frames = draw_video("green dots growing", np.random.default_rng([1, number, step > 0, i]))
                write_h264(folder / "videos" / split / name / f"{i:03d}.mp4", frames[::step])
    config = replace(demo_config(folder / "videos"), training={"eval_every": 0})
    (folder / "config.yaml").write_text(config.to_yaml())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
