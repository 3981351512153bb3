"""Clips a second on one core: evl against the plain way and torchcodec; writes benchmarks/results/loading-NAME.*

python benchmarks/loading.py                 # some minutes; --files, --repeats, --name

Training: an 8x16 clip with RandAugment, cropped, resized to 224. Evaluation: 3x1 views of 8x16. On made videos of 10 s
in H.264 with x264's default key frames (340×256 and 1920×1080), and on copies of them by 'evl prepare'.
The plain way decodes all frames and turns all into pixels; in evaluation it also turns all of them to floats and
resizes all, as the original release does. The ways take turns, file by file, so that noise falls on all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import mean

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from evl.bench.measure import describe_machine, peak_bytes
from evl.collections.copy_video import CopySettings
from evl.collections.prepare import prepare
from evl.config import AugmentConfig
from evl.errors import ConfigError
from evl.runtime.text import table
from evl.types import Preprocessing
from evl.video.augment import TrainingTransform, draw_crop
from evl.video.decode import torchcodec
from evl.video.decode.index import frame_index
from evl.video.decode.reader import read_clip
from evl.video.plans import RandomClip, Spacing
from evl.video.sampling import clip_indices, random_clip_indices
from evl.video.transforms import crop_origins, normalize, resized_size
from evl.video.views import read_views

CLIP = dict(num_frames=8, stride=16)
PIXELS = dict(mean=(0.481, 0.458, 0.408), std=(0.269, 0.261, 0.276))
TRANSFORM = TrainingTransform(AugmentConfig(flip=0.0), Preprocessing((224, 224), **PIXELS))
TIMM = rand_augment_transform(
    AugmentConfig().rand_augment, {"img_mean": (123, 117, 104), "interpolation": Image.Resampling.BICUBIC}
)
RESULTS = Path(__file__).parent / "results"


def choose(count: int, seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    return random_clip_indices(count, **CLIP, past_end="last_sampled_frame", generator=generator)


def train_plain(path: str, seed: int) -> torch.Tensor:
    frames = decode_all(path)
    clip = frames[choose(len(frames), seed)]
    generator = np.random.default_rng(seed)
    clip = timm_frame_by_frame(clip, int(generator.integers(2**32))).float()
    top, left, h, w = draw_crop(*clip.shape[-2:], area=(0.08, 1), ratio=(3 / 4, 4 / 3), generator=generator)
    clip = F.interpolate(clip[..., top : top + h, left : left + w], size=(224, 224), mode="bilinear")
    return normalize(clip, **PIXELS)


def timm_frame_by_frame(clip: torch.Tensor, seed: int) -> torch.Tensor:
    frames = []
    for frame in clip.permute(0, 2, 3, 1).numpy():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        frames.append(np.asarray(TIMM(Image.fromarray(frame))))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def train_evl(path: str, seed: int, decoder: str = "pyav") -> torch.Tensor:
    plan = RandomClip(Spacing(**CLIP), (seed,))
    clip = read_clip(path, plan, decoder=decoder)
    return TRANSFORM(clip.frames, np.random.default_rng(seed))


def evaluate_plain(path: str, seed: int) -> torch.Tensor:
    frames = decode_all(path).float()
    size = resized_size(*frames.shape[-2:], (224, 224))
    frames = normalize(frames, **PIXELS)
    frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    ((top, left),) = crop_origins(*size, (224, 224), 1)
    frames = frames[..., top : top + 224, left : left + 224]
    return torch.stack([frames[clip] for clip in clip_indices(len(frames), **CLIP, num_clips=3)])


def evaluate_evl(path: str, seed: int, **options) -> torch.Tensor:
    return read_views(path, **CLIP, num_clips=3, num_crops=1, size=224, **PIXELS, **options)


def decode_all(path: str) -> torch.Tensor:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


WAYS = {
    "training": {
        "plain": train_plain,
        "evl": train_evl,
        "torchcodec": lambda path, seed: train_evl(path, seed, "torchcodec"),
    },
    "evaluation": {
        "plain": evaluate_plain,
        "evl": evaluate_evl,
        "evl, verifying": lambda path, seed: evaluate_evl(path, seed, verify=True),
        "torchcodec": lambda path, seed: evaluate_evl(path, seed, decoder="torchcodec"),
    },
}


def textured(path: str, height: int, width: int, seed: int, num_frames: int = 300) -> None:
    """A pan over a random texture of all scales, an object that moves across it, and noise."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.zeros(1, 3, height + 200, width + 200)
    for scale in (4, 8, 16, 32, 64, 128):
        noise = torch.randn(1, 3, (height + 200) // scale + 2, (width + 200) // scale + 2, generator=generator)
        ground += F.interpolate(noise, size=ground.shape[-2:], mode="bicubic") * 4 * scale**0.5
    ground = (ground[0] + 128).clamp(0, 255)
    side = height // 4
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(num_frames):
            y, x = int(100 + 99 * np.sin(i / 40 + seed)), int(100 + 99 * np.cos(i / 31))
            frame = ground[:, y : y + height, x : x + width].clone()
            y, x = (
                int((height - side) * (0.5 + 0.5 * np.sin(i / 15))),
                int((width - side) * (0.5 + 0.5 * np.cos(i / 22))),
            )
            frame[:, y : y + side, x : x + side] = ground[:, -side:, -side:]
            frame = (frame + 6 * torch.randn(frame.shape, generator=generator)).clamp(0, 255).byte()
            picture = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def measure(paths: list[str], repeats: int, ways: dict) -> dict[str, dict[str, float]]:
    """way -> milliseconds a clip, the mean (augmentation draws cheap and dear operations), and clips a second."""
    seconds = defaultdict(list)
    for path in paths:
        frame_index(path)  # known after the first epoch
    for repeat in range(repeats):
        for path in paths:
            for name, way in ways.items():
                started = time.perf_counter()
                way(path, repeat)
                seconds[name].append(time.perf_counter() - started)
    ms = {name: 1e3 * mean(values) for name, values in seconds.items()}
    return {name: {"ms": round(value, 2), "clips_a_second": round(1e3 / value, 1)} for name, value in ms.items()}


def peak(task: str, way: str, path: str) -> int:
    """Bytes that one call holds at most, in a fresh process."""
    command = [sys.executable, __file__, "--peak", task, way, path]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_peak(task: str, way: str, path: str) -> None:
    ctypes.CDLL(None).mallopt(-3, 2**20)  # large pieces are given back at once, so that the peak is what is held
    WAYS[task][way](path, 0)
    print(peak_bytes(lambda: WAYS[task][way](path, 0), torch.device("cpu")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4, help="of 340×256; one of 1080p")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--small-only", action="store_true", help="no 1080p")
    parser.add_argument("--name", help="of the files; by default the device and the date")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.utils.data.get_worker_info = lambda: True  # as in a worker: one thread a decoder
    if options.peak:
        return print_peak(*options.peak)
    try:
        torchcodec.require("torchcodec")
    except ConfigError as reason:
        print(reason, file=sys.stderr)
        for ways in WAYS.values():
            del ways["torchcodec"]
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), options)
    write(results, options.name)


def run(folder: Path, options) -> dict:
    machine = describe_machine(torch.device("cpu"))
    for name in ("av", "pillow", "torchcodec"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            machine[name] = metadata.version(name)
    results = {"machine": machine, "date": str(date.today()), "cases": []}
    for name, height, width, files in (("340×256", 256, 340, options.files), ("1920×1080", 1080, 1920, 1)):
        if options.small_only and height > 1000:
            continue
        source = folder / name / "source"
        source.mkdir(parents=True)
        for i in range(files):
            textured(str(source / f"{i}.mp4"), height, width, i)
        prepare(source, folder / name / "prepared", CopySettings(), num_workers=1)
        repeats = options.repeats if height < 1000 else max(3, options.repeats // 8)
        for kind in ("source", "prepared"):
            paths = sorted(str(path) for path in (folder / name / kind).glob("*.mp4"))
            for task, ways in WAYS.items():
                case = {"videos": f"{name}, {kind}", "task": task, "bytes": sum(os.path.getsize(p) for p in paths)}
                against = dict(ways)
                if height > 1000 and task == "evaluation":  # the plain way needs more than 22 GB
                    del against["plain"]
                if kind == "prepared" and "plain" in against:  # against the plain way on the source
                    sources = dict(zip(paths, sorted(map(str, source.glob("*.mp4"))), strict=True))
                    against["plain"] = lambda path, seed, way=ways["plain"], at=sources: way(at[path], seed)
                case["ways"] = measure(paths, repeats, against)
                if task == "evaluation" and kind == "source":
                    for way, values in case["ways"].items():
                        values["peak_bytes"] = peak(task, way, paths[0])
                results["cases"].append(case)
                print(json.dumps(case), file=sys.stderr, flush=True)
    return results


def write(results: dict, name: str | None) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = f"loading-{name or platform.machine() + '-' + results['date']}"
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(as_markdown(results))


def as_markdown(results: dict) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "# Loading, on one core",
        "",
        f"{machine}; {results['date']}. Means; training 8x16 with RandAugment, evaluation 3x1 views of 8x16.",
        "Prepared copies stand against the plain way on their sources. At 1080p the plain way of evaluation was left",
        "out: it needs more than 22 GB.",
        "",
    ]
    rows = []
    for case in results["cases"]:
        plain = case["ways"].get("plain", {}).get("ms")
        for way, values in case["ways"].items():
            memory = f"{values['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in values else ""
            ratio = f"**{plain / values['ms']:.1f}**" if plain else "–"
            size, speed = f"{case['bytes'] / 1e6:.1f}", values["clips_a_second"]
            rows.append((case["videos"], size, case["task"], way, values["ms"], speed, ratio, memory))
    head = ("videos", "MB", "task", "way", "ms", "a second", "times the plain way", "peak MiB")
    return "\n".join([*lines, *table(head, rows)]) + "\n"


if __name__ == "__main__":
    main()
