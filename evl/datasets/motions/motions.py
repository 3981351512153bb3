"""The data set `motions`: H.264 videos of drawn objects that move as in Something-Something, made on the spot.

make_motions("motions", counts={"train": 2100, "test": 500})

motions/motion.csv, motions/object.csv     two manifests of the same videos: which motion, which kind of object
motions/videos/SPLIT/000123.mp4            96 × 96 pixels, 16 to 24 frames
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator

from evl.datasets.motions.drawing import draw_frames
from evl.datasets.motions.objects import SPLITS, Object, category_names, load_objects
from evl.datasets.motions.templates import SIZE, TEMPLATES, draw_scene, num_objects
from evl.errors import ConfigError
from evl.runtime.files import write_atomically

RATE = 12  # frames a second
RATE_FACTORS = (20, 34)  # x264's, from … to: less is better
CHUNK = 16  # videos a worker makes before it tells
MANIFESTS = ("motion.csv", "object.csv")  # labels: the template, the category


def make_motions(
    folder: str | Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Makes ``counts[split]`` videos of each split and writes the two manifests, last.

    Splits are ``train``, ``val`` and ``test``, each with objects and artists of its own. Without ``val`` videos the
    manifests call the test videos ``val``, so that training judges by them. Seed and split decide what is in a video,
    not how many workers there are. ``progress(done, total)`` hears of videos; ``workers=0`` makes them in this process.
    Raises ConfigError for counts that cannot be, SaveError where the system refuses to write.
    """
    folder = Path(folder)
    _check(counts, workers)
    plans = {split: plan(split, counts[split], seed) for split in SPLITS if counts.get(split)}
    jobs = [
        (folder / "videos" / split, split, seed, first, pairs[first : first + CHUNK])
        for split, pairs in plans.items()
        for first in range(0, len(pairs), CHUNK)
    ]
    total, done = sum(map(len, plans.values())), 0
    for name in MANIFESTS:  # of a set that stood here before: stopped half way, they would name what is there no more
        (folder / name).unlink(missing_ok=True)
    for made in _work(jobs, workers):
        done += made
        progress(done, total)
    _write_manifests(folder, plans)


def plan(split: str, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(template, category) of each video: all pairs once, in an order of their own, then all again.

    However many videos there are, templates are as frequent as each other but for one, and so are categories.
    """
    templates, categories = tuple(TEMPLATES), category_names()
    once = math.lcm(len(templates), len(categories))  # pairs until the same pair would come again
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        rng = np.random.default_rng([seed, SPLITS.index(split), len(pairs), 1])  # 1: apart from the videos' own
        names, kinds = rng.permutation(templates), rng.permutation(categories)
        for i in range(len(names) * len(kinds)):
            pairs.append((str(names[i % len(names)]), str(kinds[(i + i // once) % len(kinds)])))
    return pairs[:count]


def draw_motion(
    template: str, category: str, split: str, index: int, seed: int = 0
) -> tuple[list[np.ndarray], int, tuple[Object, ...]]:
    """(F frames (96,96,3) uint8, x264's rate factor, the objects in it) of one video."""
    number = SPLITS.index(split)
    rng = np.random.default_rng([seed, number, index])
    things = choose_objects(split, category, num_objects(template, rng), rng)
    scene = draw_scene(template, [thing.reach for thing in things], rng)
    frames = draw_frames(scene, [thing.picture for thing in things], rng, seed=seed, split=number)
    return frames, int(rng.integers(RATE_FACTORS[0], RATE_FACTORS[1] + 1)), things


def choose_objects(split: str, category: str, count: int, rng: Generator) -> tuple[Object, ...]:
    """``count`` objects of a category, different ones as far as there are; the first, in every class, is one that can
    be seen to turn."""
    things = [thing for thing in load_objects(split) if thing.category == category]
    order = [things[i] for i in rng.permutation(len(things))]
    first = next((thing for thing in order if thing.shows_turning), order[0])
    rest = [thing for thing in order if thing is not first] or [first]
    return first, *(rest[i % len(rest)] for i in range(count - 1))


def encode(frames: list[np.ndarray], rate_factor: int) -> bytes:
    """An MP4 file of frames (H,W,3) uint8, the same bytes each time."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(rate_factor), "preset": "superfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width = SIZE, SIZE
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _make(job: tuple[Path, str, int, int, list[tuple[str, str]]]) -> int:
    """What a worker does: some videos of a split, from number ``first`` on."""
    folder, split, seed, first, pairs = job
    for index, (template, category) in enumerate(pairs, first):
        frames, rate_factor, _ = draw_motion(template, category, split, index, seed)
        data = encode(frames, rate_factor)
        with write_atomically(folder / f"{index:06d}.mp4", sync=False) as file:
            file.write(data)
    return len(pairs)


def _work(jobs: list, workers: int) -> Iterator[int]:
    if workers == 0:
        yield from map(_make, jobs)
        return
    from evl.runtime.parallel import Crash, each_in_process  # it brings torch, which making videos does without

    work = each_in_process(_make, jobs, workers)
    try:
        for job, made in work:
            if isinstance(made, Crash):
                raise RuntimeError(f"a process that made videos for {job[0]} ended with exit code {made.exit_code}")
            yield made
    finally:
        work.close()


def _write_manifests(folder: Path, plans: Mapping[str, list[tuple[str, str]]]) -> None:
    from evl.data.manifests.manifest import write_manifest
    from evl.types import Sample

    called = {split: split for split in plans}
    if "val" not in plans and "test" in plans:
        called["test"] = "val"
    rows = [
        (str(folder / "videos" / split / f"{index:06d}.mp4"), pair, called[split])
        for split, pairs in plans.items()
        for index, pair in enumerate(pairs)
    ]
    for place, name in enumerate(MANIFESTS):
        samples = [Sample(path, pair[place]) for path, pair, _ in rows]
        write_manifest(folder / name, samples, [split for _, _, split in rows])


def _check(counts: Mapping[str, int], workers: int) -> None:
    for split, count in counts.items():
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}: expected some of {', '.join(SPLITS)}")
        if count < 0:
            raise ConfigError(f"{count} videos for {split}: expected 0 or more")
    if not any(counts.values()):
        raise ConfigError(f"no videos were asked for: expected a number for one of {', '.join(SPLITS)}")
    if workers < 0:
        raise ConfigError(f"{workers} workers: expected 0 (this process) or more")
