"""What a timeline costs, beside ``predict`` on the same windows: python benchmarks/timeline.py

It makes a video (320×240), and measures in one process: the timeline with a window at each sampled frame, its parts,
and ``model.predict`` on some of the windows, before and after it. Weights are random. It prints the ratio, and the
decoder's share; writes results/timeline-NAME.json. --backbone, --windows, --num-frames, --decoder, --side-width,
--batch-size, --predicted, --name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import torch

import evl
from evl.bench.measure import describe_machine
from evl.bench.run import B16
from evl.config import RunConfig, replace
from evl.runtime.cpu import keep_freed_memory
from evl.saving import build_classifier
from evl.streams import windows
from evl.streams.windows import FrameEncoder
from evl.types import Sample

RESULTS = Path(__file__).parent / "results"
RATE, STRIDE = 24, 6  # four sampled frames per second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", default=B16)
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--decoder", default="evl")
    parser.add_argument("--side-width", type=int)
    parser.add_argument("--batch-size", type=int, help="windows at a time")
    parser.add_argument("--predicted", type=int, default=6, help="windows for predict, before and after")
    parser.add_argument("--name", default=f"{date.today()}")
    options = parser.parse_args()
    keep_freed_memory()  # as 'evl timeline' does
    config = replace(
        RunConfig(),
        backbone={"name": options.backbone, "pretrained": False},
        model={"decoder": options.decoder, "side_width": options.side_width},
        clip={"num_frames": options.num_frames, "stride": STRIDE},
    )
    model = build_classifier(config, [f"class {n}" for n in range(400)], seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = made_film(Path(folder) / "film.mp4", (options.windows + options.num_frames - 1) * STRIDE)
        found = measured(model, path, options)
    about = {
        "date": str(date.today()), "evl": evl.__version__, **describe_machine(torch.device("cpu")),
        "backbone": options.backbone, "decoder": options.decoder, "side_width": options.side_width,
        "num_frames": options.num_frames, **found,
    }  # fmt: skip
    (RESULTS / f"timeline-{options.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=1))


def measured(model, path: str, options) -> dict:
    """Seconds of the processor (of all threads) and of the clock, the ratio, the decoder's share and the difference."""
    clocks = {"processor": time.process_time, "clock": time.perf_counter}
    seconds = {name: defaultdict(float) for name in clocks}

    @contextmanager
    def timed(part: str):
        before = {name: clock() for name, clock in clocks.items()}
        try:
            yield
        finally:
            for name, clock in clocks.items():
                seconds[name][part] += clock() - before[name]

    def within(part: str, call):
        def run(*args, **kwargs):
            with timed(part):
                return call(*args, **kwargs)

        return run

    def reading(call):
        def run(*args, **kwargs):
            pictures = call(*args, **kwargs)
            while True:
                with timed("reading"):
                    picture = next(pictures, None)
                if picture is None:
                    return
                yield picture

        return run

    evl.timeline(model, Sample(path, None, 0, 4))  # the first call of each shape is slower
    parts = {part: getattr(FrameEncoder, part) for part in ("views", "encode")}
    forward = windows.read_forward
    predicted: dict[int, np.ndarray] = {}

    def predict(chosen: list[int]) -> None:
        samples = [window_sample(path, number, options.num_frames) for number in chosen]
        with timed("predict"):
            found = model.predict(samples, num_clips=1, batch_size=min(8, len(samples)), progress=False)
        predicted.update(zip(chosen, (one.scores for one in found), strict=True))

    chosen = np.linspace(0, options.windows - 1, 2 * options.predicted).astype(int).tolist()
    predict(chosen[::2])
    try:
        for part, call in parts.items():
            setattr(FrameEncoder, part, within(part, call))
        windows.read_forward = reading(forward)
        with timed("timeline"):
            line = evl.timeline(model, path, batch_size=options.batch_size)
    finally:
        for part, call in parts.items():
            setattr(FrameEncoder, part, call)
        windows.read_forward = forward
    predict(chosen[1::2])
    differences = [np.abs(line.scores[number] - scores).max() for number, scores in predicted.items()]
    result = {"num_windows": len(line.times), "num_predicted": len(predicted), "difference": float(max(differences))}
    for name, own in seconds.items():
        own["decoder"] = own["timeline"] - own["views"] - own["encode"] - own["reading"]
        ratio = own["predict"] / len(predicted) / (own["timeline"] / len(line.times))
        result[name] = {
            "ratio": round(ratio, 2),
            "decoder_share": round(own["decoder"] / own["timeline"], 4),
            "seconds": {part: round(value, 3) for part, value in own.items()},
        }
    return result


def window_sample(path: str, number: int, num_frames: int) -> Sample:
    """The part of the film with exactly the frames of a window."""
    first = number * STRIDE
    return Sample(path, None, first / RATE, (first + (num_frames - 1) * STRIDE + 0.5) / RATE)


def made_film(path: Path, num_frames: int, rate: int = RATE) -> str:
    """Writes frames of moving noise, 320×240, in H.264."""
    import av

    noise = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"preset": "superfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(num_frames):
            shifted = np.roll(noise, (number // 3, number), (0, 1))[:, :80].repeat(4, 0).repeat(4, 1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shifted))))
        file.mux(stream.encode())
    return str(path)


if __name__ == "__main__":
    main()
