"""What many learners cost beside one, live and from a store: python benchmarks/learners.py

A ViT-B/16-sized backbone with random weights, 8 frames, EVL's four layers; times of whole steps (features, forward,
backward, AdamW) per clip, and their parts. What is compared is measured in turns in the same process, medians; read the
ratios. Writes results/learners-NAME.json. Decoding is in neither; batches of a store are made in memory, so the disk is
not in it either. ``--learners`` and ``--batch`` choose the size, ``--small`` a backbone that takes seconds.
"""

from __future__ import annotations

import argparse
import json
import re
from datetime import date
from functools import partial
from pathlib import Path

import torch

from evl.backbones import create_backbone
from evl.backbones.projections import projections_of
from evl.bench.measure import describe_machine, time_together
from evl.config import RunConfig, replace
from evl.models.crossframe import neighbor_maps, packed_maps, share_maps
from evl.runtime.cpu import keep_freed_memory
from evl.runtime.distributed import World
from evl.saving import build_classifier
from evl.store.description import StoreDescription, StoreOptions
from evl.store.packing import pack_maps, pack_tokens
from evl.store.store import StoredClips
from evl.store.unpacker import Unpacker
from evl.streams import Batch
from evl.training.learner import Learner
from evl.training.learners import Learners

CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results"
KINDS = {
    "evl": {},
    "evl, no cross-frame": {"cross_frame": False},
    "evl, nothing temporal": {"cross_frame": False, "temporal_conv": False, "temporal_position": False},
    "probe, one block": {"decoder": "attentive", "probe_blocks": 1},
    "linear": {"decoder": "linear"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["evl", "probe, one block"], choices=KINDS)
    parser.add_argument("--give-memory-back", action="store_true", help="as a program without evl/runtime/cpu.py")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--name", help="of the file; by default the processor and the date")
    options = parser.parse_args()
    if not options.give_memory_back:
        keep_freed_memory()  # as the commands do
    name = "vit_tiny_patch16_224" if options.small else "vit_base_patch16_224"
    config = replace(
        RunConfig(),
        backbone={"name": name, "pretrained": False},
        training={"steps": 1000, "batch_size": options.batch, "log_every": 1000},
    )
    backbone = create_backbone(config.backbone, "last 4")
    pixels = torch.randn(options.batch, 8, 3, 224, 224)
    results = [measure(kind, config, backbone, pixels, options) for kind in options.kinds]
    RESULTS.mkdir(exist_ok=True)
    here = describe_machine(CPU)
    file = options.name or f"{re.sub(r'[^a-z0-9]+', '-', here['device'].lower()).strip('-')}-{date.today()}"
    content = {"machine": here, "backbone": name, "date": str(date.today()), "results": results}
    (RESULTS / f"learners-{file}.json").write_text(json.dumps(content, indent=1) + "\n")


def measure(kind: str, config: RunConfig, backbone, pixels, options) -> dict:
    """Seconds a clip of every part, and what follows from them."""
    config = replace(config, model=KINDS[kind])
    batch, count = options.batch, options.learners
    labels = torch.arange(batch) % 10
    reads_maps = config.model.decoder == "evl" and config.model.cross_frame
    stored = {form: unpacker_of(backbone, config, form, reads_maps) for form in ("tokens", "maps")}
    clips = stored_clips(backbone, pixels)
    sources = {
        "live": lambda: backbone(pixels),
        **{form: partial(stored[form], clips[form]) for form in stored},
    }

    def made(number: int, together: int | None) -> Learners:
        learners = [
            Learner(str(g), config, build_classifier(config, [str(y) for y in range(400)], backbone=backbone, seed=g))
            for g in range(number)
        ]
        return Learners(learners, together=together)

    features = sources["maps"]()  # with the neighbor maps, so that only learners are timed
    groups = {"one learner": made(1, 1), "as they are taken": made(count, None)}
    in_one_call = max(len(unit.learners) for unit in groups["as they are taken"].units(features))
    if in_one_call > 1:  # else the same would be measured again; 16 such learners with their optimizers need 7 GB
        groups["one after the other"] = made(count, 1)
    steps = dict.fromkeys(groups, 0)

    def learn(name: str, given=None) -> None:
        groups[name].train()
        batch_of = Batch(given() if given else features, labels, tuple(range(batch)), {})
        groups[name].step(steps[name], [batch_of], World(0, 1, CPU))
        steps[name] += 1

    tasks = {f"features, {name}": source for name, source in sources.items()}
    tasks["neighbor maps, live"] = partial(share_maps, sources["live"](), range(4), backbone.spec.grid)
    tasks |= {name: partial(learn, name) for name in groups}
    # in turns, so that what else the machine does falls on all alike
    seconds = {name: value / batch for name, value in time_together(tasks, CPU, options.repeats).items()}
    maps = seconds["neighbor maps, live"] if reads_maps else 0.0
    paid = {"live": seconds["features, live"] + maps, **{form: seconds[f"features, {form}"] for form in stored}}
    single = {name: cost + seconds["one learner"] for name, cost in paid.items()}
    many = {name: cost + seconds["as they are taken"] for name, cost in paid.items()}
    result = {
        "kind": kind,
        "learners": count,
        "batch": batch,
        "seconds_per_clip": seconds,
        "in_one_call": in_one_call,
        "live: learners in one pass / one run": many["live"] / single["live"],
        **{f"{form}: learners in one pass / that many runs": many[form] / (count * single[form]) for form in stored},
    }
    print(json.dumps(result, indent=1), flush=True)
    return result


def unpacker_of(backbone, config: RunConfig, form: str, needs_maps: bool) -> Unpacker:
    description = StoreDescription(
        config=config, backbone_hash=backbone.weights_hash, spec=backbone.spec, preprocessing=backbone.preprocessing,
        options=StoreOptions(form=form), precision="fp32",
        class_names=("a", "b"), splits={"train": 1}, videos_hash="0" * 64, clips_per_shard=1, evl_version="0",
    )  # fmt: skip
    projections = projections_of(backbone) if form == "tokens" else None
    return Unpacker(description, projections, needs_maps=needs_maps)


def stored_clips(backbone, pixels) -> dict[str, StoredClips]:
    """What a store of float16 holds of the clips, by form."""
    tokens, features = backbone.token_maps(pixels)
    tokens = {block: pack_tokens(one, "float16", "channel") for block, one in tokens.items()}
    maps = {}
    for block, one in zip(backbone.taps, features, strict=True):
        whole = neighbor_maps(one.query, one.key, backbone.spec.grid, torch.float32)
        maps[block] = pack_maps(packed_maps(whole, torch.float32), "float16")
    tapped = {block: tokens[block] for block in backbone.taps}
    return {"tokens": StoredClips(tokens, {}), "maps": StoredClips(tapped, maps)}


if __name__ == "__main__":
    main()
