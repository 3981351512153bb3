"""A process that makes a store again and again in children that it kills, and tells the parent in JSON what happened.

    python -m tests.extraction.killed CONFIG.yaml FOLDER moments | random COUNT SEED | together COUNT SEED

One start of Python for all: a child that is forked has imported everything, and has the encoder. Nothing is computed
here by several threads before a fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

import evl.extraction.extract
import evl.extraction.work
import evl.runtime.files
from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.store.description import StoreOptions

SHARD = 6  # clips
OPTIONS = dict(clips_per_video=2, dtype="int8")


def extract_here(config: RunConfig, out: Path, part=(1, 1), **options) -> None:
    """Small shards, of a few clips, as a description would have them of larger ones."""
    evl.extraction.work.clips_per_shard = lambda size, options: SHARD
    config = replace(config, data={"num_workers": 0})
    evl.extraction.extract.extract(config, out, StoreOptions(**OPTIONS, **options), part=part)


def start(action) -> int:
    """The id of a forked child that does it: it ends with 0, or 1 with a traceback."""
    process = os.fork()
    if process:
        return process
    try:
        action()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def end_of(process: int) -> int:
    """0, 1, or −9."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(moment: int, action) -> None:
    """Kills itself at the moment-th of these: a file is half written, whole under its temporary name, in its place."""
    passed = 0

    def pass_one() -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            die()

    replace, link, fsync = os.replace, os.link, os.fsync

    def torn(descriptor: int) -> None:
        if passed == moment - 1:
            os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
        pass_one()
        fsync(descriptor)

    def named(how):
        def step(source, target) -> None:
            pass_one()
            how(source, target)
            pass_one()

        return step

    os.replace, os.link, os.fsync = named(replace), named(link), torn
    action()


def at_every_moment(config: RunConfig, folder: Path) -> dict:
    """A store that is killed at every moment of every file's writing, one after the other."""
    out, kills = folder / "moments", 0
    while end_of(start(partial(dying_at, 1 + kills % 3, partial(extract_here, config, out)))) != 0:
        kills += 1
        assert kills < 1000
    return {"moments": kills}


def at_random(config: RunConfig, folder: Path, count: int, seed: int, parts: int = 1) -> dict:
    """Stores that are killed at random, ``count`` times in all, and finished, by ``parts`` processes side by side."""
    generator, numbers = random.Random(seed), range(1, parts + 1)

    def run(out: Path) -> list[int]:
        return [start(partial(extract_here, config, out, (number, parts))) for number in numbers]

    def seconds_of(out: Path) -> float:
        started = time.monotonic()
        assert all([end_of(process) == 0 for process in run(out)])
        return time.monotonic() - started

    whole, idle = seconds_of(folder / "random0"), seconds_of(folder / "random0")
    kills, made, shards = 0, 0, []
    while kills < count:  # a store that is finished too soon is one of several
        made += 1
        out = folder / f"random{made}"
        ends = [-signal.SIGKILL]
        while kills < count and any(ends):
            processes = run(out)
            time.sleep(generator.uniform(0, idle + 2 * max(0.0, whole - idle) / count))
            for process in processes:
                os.kill(process, signal.SIGKILL)
            ends = [end_of(process) for process in processes]
            assert 1 not in ends
            kills += any(ends)
            shards.append(len(list(out.glob("shards/*.safetensors"))))
        assert all([end_of(process) == 0 for process in run(out)])
    return {"kills": kills, "shards_then": shards}


def main() -> None:
    config, folder, what = RunConfig.from_yaml(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    numbers = list(map(int, sys.argv[4:]))
    torch.set_num_threads(1)
    encoder = create_backbone(config.backbone, config.model.taps)
    evl.extraction.work.create_backbone = lambda *_: encoder
    assert end_of(start(lambda: extract_here(config, folder / "whole"))) == 0
    if what == "moments":
        result = at_every_moment(config, folder) | at_random(config, folder, *numbers)
    else:
        result = at_random(config, folder, *numbers, parts=2 if what == "together" else 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
