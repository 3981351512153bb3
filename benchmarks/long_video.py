"""The timeline of a long video in little memory: nice -n 10 python benchmarks/long_video.py --minutes 60

It makes a video (320×240, 8 frames per second, of which the model samples 4), and reads it with the embedded encoder.
It prints the frames that were sampled, those that passed the encoder, and the memory of the process after each tenth;
writes results/long-video-NAME.json. --minutes, --decoder, --name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from timeline import RESULTS, made_film

import evl
from evl.bench.measure import describe_machine
from evl.config import RunConfig, replace
from evl.inference.timeline import plan_for, timeline_of
from evl.runtime.cpu import keep_freed_memory
from evl.saving import build_classifier
from evl.streams.windows import FrameEncoder
from evl.types import Sample

RATE, STRIDE = 8, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--decoder", default="evl")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    keep_freed_memory()  # as 'evl timeline' does
    config = replace(
        RunConfig(),
        backbone={"name": "evl_clip_tiny"},
        model={"decoder": options.decoder, "taps": "last 2"},
        clip={"num_frames": 8, "stride": STRIDE},
    )
    model = build_classifier(config, ["a", "b", "c"], seed=0).eval()
    encoded, memory, started = [0], [], time.process_time()
    encode = FrameEncoder.encode

    def counting(self, views):
        encoded[0] += len(views)
        return encode(self, views)

    FrameEncoder.encode = counting
    with tempfile.TemporaryDirectory() as folder:
        path = made_film(Path(folder) / "film.mp4", round(options.minutes * 60 * RATE), RATE)
        made = time.process_time()
        done = 0

        def progress(count: int, total: int) -> None:
            nonlocal done
            done += count
            if done * 10 >= total * (len(memory) + 1):
                memory.append(resident())
                print(f"{done} of {total} windows, {memory[-1]} MB", flush=True)

        line = timeline_of(model, Sample(path), plan_for(model), progress=progress)
    about = {
        "date": str(date.today()), "evl": evl.__version__, **describe_machine(torch.device("cpu")),
        "minutes": options.minutes, "decoder": options.decoder, "windows": len(line.times),
        "frames_sampled": len(np.unique(line.frames)), "frames_encoded": encoded[0], "megabytes": memory,
        "processor_seconds": round(time.process_time() - made, 1),
        "processor_seconds_to_make_the_video": round(made - started, 1),
    }  # fmt: skip
    (RESULTS / f"long-video-{options.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=1))


def resident() -> int:
    """The memory of this process, in MB (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1000


if __name__ == "__main__":
    main()
