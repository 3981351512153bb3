"""Training from a store against training live; writes benchmarks/results/store-NAME.json and store-NAME.md.

python benchmarks/store.py                                          # some minutes; 3 GB of disk
python benchmarks/store.py --clips 4 --batch 2 --repeats 1 --name trial

A random ViT-B/16, 8 frames, four taps. Steps of all forms and of live training take turns in one process; pixels of the
live ones are in memory already, stored clips are read (page cache) and unpacked inside the step, one after the other.
Epochs are as 'evl train --features' reads them: ahead, by threads. Eight clips went through the backbone, and stand in
the store again and again: neither bytes nor time depend on what they show.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from evl.backbones import create_backbone
from evl.backbones.base import FrozenBackbone
from evl.backbones.projections import projections_of
from evl.bench.counts import backbone_macs, decoder_macs, total_macs
from evl.bench.measure import describe_machine, matmul_peak, time_together
from evl.config import RunConfig, replace
from evl.models import Classifier
from evl.models.crossframe import block_sizes, neighbor_maps, packed_maps
from evl.runtime.cpu import keep_freed_memory
from evl.runtime.distributed import World
from evl.runtime.text import table
from evl.saving import build_classifier
from evl.store import FeatureStore, StoredClips, StoreDescription, StoreOptions
from evl.store.description import PROJECTIONS, bytes_per_clip, clips_per_shard, shard_ranges
from evl.store.index import write_index
from evl.store.packing import Packed, pack_maps, pack_tokens
from evl.store.unpacker import Unpacker, open_unpacker
from evl.store.writing import ShardItem, write_description, write_shard
from evl.streams import Batch
from evl.streams.stored import StoredTrainingClips, read_ahead
from evl.training.learner import Learner, make_optimizer
from evl.training.learners import Learners
from evl.types import BackboneSpec, Sample

FORMS = [(form, dtype) for form in ("tokens", "maps") for dtype in ("float32", "float16", "bfloat16", "int8", "float8")]
TIMED = [("tokens", "float16"), ("tokens", "int8"), ("tokens", "float8"), ("maps", "float16"), ("maps", "int8")]
CLASSES = [f"class {y}" for y in range(400)]
CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64, help="in a store whose epochs are timed")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbone", default="vit_base_patch16_clip_quickgelu_224")
    parser.add_argument("--folder", help="on the disk to measure; by default the system's for temporary files")
    parser.add_argument("--name", help="of the files; by default the device and the date")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    config = replace(
        RunConfig(),
        backbone={"name": options.backbone, "pretrained": False},
        clip={"num_frames": options.frames},
        training={"steps": 10_000, "batch_size": options.batch, "precision": "fp32"},
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(config, Path(folder), options.clips, options.repeats)
    write(result, options.name)


def measure(config: RunConfig, folder: Path, num_clips: int, repeats: int) -> dict:
    torch.manual_seed(0)
    backbone = create_backbone(config.backbone, config.model.taps)
    batch, frames = config.training.batch_size, config.clip.num_frames
    pixels = torch.randn(max(batch, min(8, num_clips)), frames, 3, *backbone.spec.image_size)
    say("backbone and stores")
    made = features_of(backbone, pixels)
    on_disk = {}
    for form, dtype in FORMS:
        is_timed = (form, dtype) in TIMED
        path = folder / f"{form}-{dtype}"
        count = num_clips if is_timed else len(pixels)
        options = StoreOptions(form=form, dtype=dtype)
        on_disk[form, dtype] = write_store(path, backbone, config, options, made, count) / count
        if not is_timed:
            shutil.rmtree(path)
    del made

    say("peaks of this machine")
    peak = {"matmul_gflops": matmul_peak(CPU, torch.float32, size=2048, repeats=repeats) / 1e9}
    peak["copy_gb_a_second"] = copy_rate(repeats) / 1e9
    live = build_classifier(config, CLASSES, backbone=backbone)
    labels = torch.arange(batch)
    steps = {"live": step_of(live, backbone, config, itertools.repeat((pixels[:batch], labels)))}
    models, unpackers, parts = {}, {}, {}
    for form, dtype in TIMED:
        store = FeatureStore(folder / f"{form}-{dtype}")
        unpacker = unpackers[form, dtype] = open_unpacker(store)
        model = models[form, dtype] = build_classifier(config, CLASSES, backbone=unpacker.encoder)
        steps[f"{form} {dtype}"] = step_of(model, unpacker, config, batches(store, batch))
    say("steps, in turns: " + ", ".join(steps))
    seconds = time_together(steps, CPU, repeats)
    for form, dtype in TIMED:
        store = FeatureStore(folder / f"{form}-{dtype}")
        parts[f"{form} {dtype}"] = time_parts(store, models[form, dtype], unpackers[form, dtype], batch, repeats)
    del store
    del steps  # they have the stores mapped, and what is mapped stays in the page cache
    epochs = {}
    for form, dtype in TIMED:
        say(f"epochs of {form} {dtype}")
        epochs[f"{form} {dtype}"] = time_epochs(
            folder / f"{form}-{dtype}", models[form, dtype], unpackers[form, dtype], config, num_clips
        )
    floors = {name: floor(name, live, backbone, config, on_disk, peak) for name in seconds}
    return {
        "machine": describe_machine(CPU),
        "settings": {"backbone": config.backbone.name, "num_frames": frames, "taps": list(backbone.taps),
                     "batch_size": batch, "clips": num_clips, "repeats": repeats},
        "peak": peak,
        "bytes_per_clip": {f"{form} {dtype}": {
            "on_disk": on_disk[form, dtype],
            "tensors": bytes_per_clip(backbone.spec, backbone.taps, StoreOptions(form=form, dtype=dtype), frames),
        } for form, dtype in FORMS},
        "steps": {name: {
            "seconds": seconds[name], "clips_a_second": batch / seconds[name],
            "times_live": seconds["live"] / seconds[name], "floor": floors[name], "parts": parts.get(name),
        } for name in seconds},
        "epochs_a_minute": epochs,
    }  # fmt: skip


def features_of(backbone: FrozenBackbone, pixels: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """(token maps, packed neighbor maps) of clips, by block."""
    tokens, maps = [], []
    for clip in pixels.split(1):
        found, features = backbone.token_maps(clip)
        tokens.append(found)
        maps.append([neighbor_maps(one.query, one.key, backbone.spec.grid, torch.float32) for one in features])
    joined = {block: torch.cat([found[block] for found in tokens]) for block in tokens[0]}
    packed = {block: torch.cat([packed_maps(found[i], torch.float32) for found in maps])
              for i, block in enumerate(backbone.taps)}  # fmt: skip
    return joined, packed


def write_store(
    path: Path, backbone: FrozenBackbone, config: RunConfig, options: StoreOptions, made, count: int
) -> int:
    """A store of ``count`` training clips, made of fewer; the bytes of its shards on disk."""
    tokens, maps = made
    spec, frames = backbone.spec, config.clip.num_frames
    description = StoreDescription(
        config=config, backbone_hash=backbone.weights_hash, spec=spec, preprocessing=backbone.preprocessing,
        options=options, precision="fp32", class_names=tuple(CLASSES),
        splits={"train": count, "val": 0}, videos_hash="0" * 64, origin=backbone.origin,
        clips_per_shard=clips_per_shard(bytes_per_clip(spec, backbone.taps, options, frames), options),
    )  # fmt: skip
    path.mkdir()
    write_description(path, description)
    if options.form == "tokens":
        (path / PROJECTIONS).write_bytes(projections_of(backbone).to_bytes())
    kept = {block: pack_tokens(x, options.dtype, options.scale) for block, x in tokens.items()}
    kept = {block: kept[block] for block in description.blocks}
    kept_maps = {block: pack_maps(x, options.dtype) for block, x in maps.items()} if options.form == "maps" else {}
    for covers in shard_ranges(description):
        rows = torch.tensor([video for video, _ in covers.pairs]) % len(next(iter(tokens.values())))
        items = [ShardItem(v, c, Sample(f"{v}.mp4", CLASSES[v % len(CLASSES)]), frames) for v, c in covers.pairs]
        write_shard(path, description, covers.number, items, *(_rows(part, rows) for part in (kept, kept_maps)))
    write_index(path)
    return sum(file.stat().st_size for file in (path / "shards").iterdir())


def _rows(packed: dict[int, Packed], rows: Tensor) -> dict[int, Packed]:
    return {block: one[rows] for block, one in packed.items()}


def batches(store: FeatureStore, size: int) -> Iterator[tuple[StoredClips, Tensor]]:
    """Without end, read when they are asked for, into the memory of the one before."""
    split, videos, out = store.splits["train"], itertools.count(), None
    while True:
        pairs = [(next(videos) % len(split), 0) for _ in range(size)]
        out = split.read(pairs, out=out)
        yield out, torch.tensor([split.labels[video] for video, _ in pairs])


def step_of(model: Classifier, encode: Callable, config: RunConfig, source: Iterator) -> Callable[[], object]:
    """A step as ``evl train`` takes it, of the next batch: ``encode`` (an encoder, or an Unpacker) makes features."""
    learners, world = Learners([Learner("bench", config, model)]), World(0, 1, CPU)
    learners.train()

    def step() -> None:
        clips, labels = next(source)
        learners.step(0, [Batch(encode(clips), labels, tuple(range(len(labels))), {})], world)

    return step


def time_parts(
    store: FeatureStore, model: Classifier, unpacker: Unpacker, batch: int, repeats: int
) -> dict[str, float]:
    """Seconds of the parts of a step, each alone."""
    source = batches(store, batch)
    clips, labels = next(source)
    features = unpacker(clips)
    optimizer = make_optimizer(model, RunConfig().training)

    def decode() -> None:
        for parameter in model.trainable_parameters():
            parameter.grad = None
        torch.nn.functional.cross_entropy(model.classify(features), labels).backward()

    decode()  # gradients for the optimizer
    calls = {"read": lambda: next(source), "unpack": lambda: _unpacked(clips), "unpack and maps":
             lambda: unpacker(clips), "optimizer": optimizer.step, "decoder": decode}  # fmt: skip
    return time_together(calls, CPU, repeats)


def _unpacked(clips: StoredClips) -> list[Tensor]:
    return [one.unpack(torch.float32) for one in (*clips.tokens.values(), *clips.maps.values())]


def time_epochs(path: Path, model: Classifier, unpacker: Unpacker, config: RunConfig, count: int) -> dict[str, float]:
    """Epochs a minute, all of training and reading alone, from page cache and from disk, and the bytes from disk."""
    results = {}
    training = config.training
    learners, world = Learners([Learner("bench", config, model)]), World(0, 1, CPU)

    def train(batch) -> None:
        learners.step(0, [Batch(unpacker(batch.clips), batch.labels, batch.indices, {})], world)

    for what, use in (("reading", lambda batch: None), ("training", train)):
        for where in ("page cache", "disk"):
            if where == "disk":
                drop_from_cache(path)
            store = FeatureStore(path)
            reader = StoredTrainingClips(store.splits["train"], config.clip, seed=0)
            order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).split(training.batch_size)
            before, started = bytes_from_disk(), time.perf_counter()
            for batch in read_ahead(reader.read, [[(0, i) for i in keys.tolist()] for keys in order], CPU):
                use(batch)
            results[f"{what}, {where}"] = 60 / (time.perf_counter() - started)
            if where == "disk" and before is not None:
                results[f"{what}, share that came from disk"] = (bytes_from_disk() - before) / _size(path)
            del store, reader, batch
    return results


def drop_from_cache(path: Path) -> None:
    """Has the system forget what it holds of a store's files, which nobody may have mapped."""
    gc.collect()
    for file in path.rglob("*.*"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bytes_from_disk() -> int | None:
    """Read by this process so far, by Linux's account; None where it keeps none."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "shards").iterdir())


def copy_rate(repeats: int) -> float:
    """Bytes a second that a copy of 256 MiB reads and writes."""
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - started)
    return 2 * source.nbytes / median(times)


def floor(name: str, model: Classifier, backbone: FrozenBackbone, config: RunConfig, on_disk, peak) -> dict:
    """The least a clip's share of a step can take: operations at the peak of products, bytes at that of copies.

    Bytes: what is read, kept and unpacked of a clip, and of the decoder what docs/performance.md counts without query
    and key (12 token maps a layer, forward and backward) and its maps (once each way); AdamW reads four tensors of the
    parameters and writes three. Of the live backbone, only the features.
    """
    spec, frames, taps = backbone.spec, config.clip.num_frames, len(backbone.taps)
    counts = decoder_macs(model.decoder, spec, frames)
    macs = {part: count for part, count in counts.items() if not (name.startswith("maps") and part == "attention maps")}
    total = total_macs(macs, "fast") + total_macs(macs, "fast backward")
    token_map, maps = 4 * frames * spec.num_tokens * spec.width, bytes_of_maps(spec, frames)
    parameters = sum(parameter.numel() for parameter in model.trainable_parameters())
    moved = taps * (12 * token_map + 3 * maps) + 7 * 4 * parameters / config.training.batch_size
    if name == "live":
        total += frames * backbone_macs(backbone)
        moved += taps * 5 * token_map  # tokens written; query and key written and read
    else:
        form, dtype = name.split()
        if form == "tokens":
            total += taps * frames * spec.num_tokens * spec.width * 2 * spec.num_heads * spec.head_width
        moved += 3 * on_disk[form, dtype] + taps * token_map + (taps + 1) * token_map * (form == "tokens")
    operations, bytes_ = 2 * total / (1e9 * peak["matmul_gflops"]), moved / (1e9 * peak["copy_gb_a_second"])
    return {"gflops": total / 1e9, "seconds_of_operations": operations, "mb_moved": moved / 1e6,
            "seconds_of_bytes": bytes_, "clips_a_second_at_most": 1 / max(operations, bytes_)}  # fmt: skip


def bytes_of_maps(spec: BackboneSpec, frames: int) -> int:
    """Of one block's skewed maps of a clip, in float32."""
    h, w = spec.grid
    return 4 * frames * h * sum(c * h * 2 * (w + c - 1) for c in block_sizes(w))


def say(what: str) -> None:
    print(what, flush=True)


def write(result: dict, name: str | None) -> None:
    name = name or f"cpu-{date.today()}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"store-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = as_markdown(result)
    (RESULTS / f"store-{name}.md").write_text(text)
    print(text)


def as_markdown(result: dict) -> str:
    machine, settings, peak = result["machine"], result["settings"], result["peak"]
    lines = [
        f"# Training from a store: {machine['device']}", "",
        ", ".join(f"{key} {value}" for key, value in machine.items() if key != "device") + f"; {date.today()}", "",
        ", ".join(f"{key} {value}" for key, value in settings.items())
        + f"; {peak['matmul_gflops']:,.0f} GFLOP/s of products, {peak['copy_gb_a_second']:.1f} GB/s of copies.", "",
        "MB (10^6 bytes) a clip, on disk:", "",
    ]  # fmt: skip
    dtypes, sizes = [dtype for _, dtype in FORMS[:5]], result["bytes_per_clip"]
    rows = [
        (form, *(f"{sizes[f'{form} {dtype}']['on_disk'] / 1e6:.2f}" for dtype in dtypes)) for form in ("tokens", "maps")
    ]
    lines += table(("form", *dtypes), rows)
    parts = ("read", "unpack", "unpack and maps", "decoder", "optimizer")
    head = ["step", "seconds", "clips/s", "times live", "floor: GFLOPs, s", "MB moved, s", "clips/s at most", *parts]
    rows = []
    for name, one in result["steps"].items():
        least, inside = one["floor"], one["parts"] or {}
        rows.append((
            name, f"{one['seconds']:.3g}", f"{one['clips_a_second']:.2f}", f"**{one['times_live']:.1f}**",
            f"{least['gflops']:.1f}, {least['seconds_of_operations']:.3f}",
            f"{least['mb_moved']:.0f}, {least['seconds_of_bytes']:.3f}", f"{least['clips_a_second_at_most']:.1f}",
            *(f"{inside[part]:.3f}" if part in inside else "" for part in parts),
        ))  # fmt: skip
    lines += ["", "A step of a batch, seconds; floors of one clip:", "", *table(head, rows)]
    columns = list(dict.fromkeys(key for one in result["epochs_a_minute"].values() for key in one))
    rows = []
    for name, one in result["epochs_a_minute"].items():
        rows.append((name, *(f"{one[key]:.0%}" if "share" in key else f"{one[key]:.1f}" for key in columns)))
    lines += ["", f"Epochs a minute, of {settings['clips']} clips:", "", *table(("store", *columns), rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
