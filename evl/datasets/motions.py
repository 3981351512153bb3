"""Makes the data set `motions`: H.264 videos of drawn objects that move as in Something-Something.

make_motions("motions", counts={"train": 2100, "test": 500})

motions/motion.csv, motions/object.csv     two manifests of the same videos, with the motion or the category as label
motions/videos/SPLIT/000123.mp4            96 × 96 pixels, 16 to 24 frames
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator

from evl.datasets.drawing import SPLITS, Object, category_names, draw_frames, load_objects
from evl.datasets.templates import SIZE, TEMPLATES, draw_scene, num_objects
from evl.errors import ConfigError
from evl.runtime.files import write_file
from evl.runtime.parallel import Crash, each_in_process

RATE = 12  # frames per second
RATE_FACTORS = (20, 34)  # the smallest and the largest of x264's rate factors; a smaller one gives better quality
CHUNK = 16  # videos that a worker makes before it reports progress
MANIFESTS = ("motion.csv", "object.csv")  # with the template or the category as label


def make_motions(
    folder: str | Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Makes ``counts[split]`` videos of each split, and writes the two manifests at the end.

    Splits are ``train``, ``val`` and ``test``; each has its own objects and artists. Without ``val`` videos, the
    manifests call the test videos ``val``, so that training is judged by them. The videos depend on the seed and the
    split, but not on the number of workers. ``workers=0`` makes them in this process. ``progress(done, total)`` is
    called with numbers of videos. Raises ConfigError for invalid counts, SaveError if the system cannot write.
    """
    folder = Path(folder)
    validate_counts(counts, workers)
    plans = {split: plan(split, counts[split], seed) for split in SPLITS if counts.get(split)}
    jobs = [
        (folder / "videos" / split, split, seed, first, pairs[first : first + CHUNK])
        for split, pairs in plans.items()
        for first in range(0, len(pairs), CHUNK)
    ]
    total, done = sum(map(len, plans.values())), 0
    for name in MANIFESTS:  # after an interruption, old manifests would name videos that do not exist any more
        (folder / name).unlink(missing_ok=True)
    for made in made_in_processes(_make, jobs, workers):
        done += made
        progress(done, total)
    _write_manifests(folder, plans)


def plan(split: str, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(template, category) of each video: all pairs once in random order, then all again in another order.

    For any count, the numbers of videos of two templates differ by at most one, and so do those of two categories.
    """
    templates, categories = tuple(TEMPLATES), category_names()
    once = math.lcm(len(templates), len(categories))  # pairs before the first pair would repeat
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        rng = np.random.default_rng([seed, SPLITS.index(split), len(pairs), 1])  # 1: another seed than those of videos
        names, kinds = rng.permutation(templates), rng.permutation(categories)
        for i in range(len(names) * len(kinds)):
            pairs.append((str(names[i % len(names)]), str(kinds[(i + i // once) % len(kinds)])))
    return pairs[:count]


def draw_motion(
    template: str, category: str, split: str, index: int, seed: int = 0
) -> tuple[list[np.ndarray], int, tuple[Object, ...]]:
    """(F frames (96,96,3) uint8, x264's rate factor, the objects in the video) of one video."""
    number = SPLITS.index(split)
    rng = np.random.default_rng([seed, number, index])
    things = choose_objects(split, category, num_objects(template, rng), rng)
    scene = draw_scene(template, [thing.reach for thing in things], rng)
    frames = draw_frames(scene, [thing.picture for thing in things], rng, seed=seed, split=number)
    return frames, int(rng.integers(RATE_FACTORS[0], RATE_FACTORS[1] + 1)), things


def choose_objects(split: str, category: str, count: int, rng: Generator) -> tuple[Object, ...]:
    """``count`` objects of a category, different ones as long as there are enough.

    In every class, the first object looks different when it is turned.
    """
    things = [thing for thing in load_objects(split) if thing.category == category]
    order = [things[i] for i in rng.permutation(len(things))]
    first = next((thing for thing in order if thing.shows_turning), order[0])
    rest = [thing for thing in order if thing is not first] or [first]
    return first, *(rest[i % len(rest)] for i in range(count - 1))


def encode(frames: list[np.ndarray], rate_factor: int) -> bytes:
    """Encodes frames (H,W,3) uint8 as an MP4 file; the same frames always give the same bytes."""
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
    folder, split, seed, first, pairs = job
    for index, (template, category) in enumerate(pairs, first):
        frames, rate_factor, _ = draw_motion(template, category, split, index, seed)
        data = encode(frames, rate_factor)
        write_file(folder / f"{index:06d}.mp4", data, sync=False, one_of_many=True)
    return len(pairs)


def made_in_processes(make: Callable, jobs: list, workers: int) -> Iterator[int]:
    """Yields ``make(job)`` for all jobs, as they finish; a job begins with the folder of its videos."""
    if workers == 0:
        yield from map(make, jobs)
        return
    with closing(each_in_process(make, jobs, workers)) as work:
        for job, made in work:
            if isinstance(made, Crash):
                raise RuntimeError(f"a process that made videos for {job[0]} ended with exit code {made.exit_code}")
            yield made


def _write_manifests(folder: Path, plans: Mapping[str, list[tuple[str, str]]]) -> None:
    from evl.data.manifests.manifest import write_manifest
    from evl.types import Sample

    split_names = {split: split for split in plans}
    if "val" not in plans and "test" in plans:
        split_names["test"] = "val"
    rows = [
        (str(folder / "videos" / split / f"{index:06d}.mp4"), pair, split_names[split])
        for split, pairs in plans.items()
        for index, pair in enumerate(pairs)
    ]
    for place, name in enumerate(MANIFESTS):
        samples = [Sample(path, pair[place]) for path, pair, _ in rows]
        write_manifest(folder / name, samples, [split for _, _, split in rows])


def validate_counts(counts: Mapping[str, int], workers: int) -> None:
    for split, count in counts.items():
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}: expected some of {', '.join(SPLITS)}")
        if count < 0:
            raise ConfigError(f"{count} videos for {split}: expected 0 or more")
    if not any(counts.values()):
        raise ConfigError(f"no videos to make: expected a number for one of {', '.join(SPLITS)}")
    if workers < 0:
        raise ConfigError(f"{workers} workers: expected 0 (this process) or more")
