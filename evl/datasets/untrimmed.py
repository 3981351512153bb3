"""Makes the data set `motions, untrimmed`: longer H.264 videos in which motions happen now and then, at known times.

python -m evl.datasets.untrimmed FOLDER [TRAIN VAL TEST SEED]

FOLDER/segments.csv                 a manifest with a row for each motion: its label, start and end, and the split
FOLDER/videos/SPLIT/000012.mp4      96 × 96 pixels, 12 frames per second, about 45 seconds

A video is a row of **shots** with a cut between them. In most shots the objects stand still, one motion of ``motions``
happens, and they stand still again. In the others nothing happens. The camera trembles and wanders all the time. So
neither a cut nor a moving picture shows that something happens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from evl.datasets.drawing import SPLITS, Object, category_names, draw_frames
from evl.datasets.motions import RATE, RATE_FACTORS, choose_objects, encode, made_in_processes, validate_counts
from evl.datasets.templates import Scene, Track, draw_scene, draw_shake, num_objects
from evl.runtime.files import write_file
from evl.types import Sample

MANIFEST = "segments.csv"
EVENTS = (
    "moving something left",
    "moving something right",
    "moving something up",
    "moving something down",
    "something coming closer",
    "something going away",
)  # the motions of ``motions`` that last for a second or so and need one object
NUM_EVENTS = (5, 9)  # the fewest and the most motions of a video
PAUSE = (8, 30)  # frames before and after a motion: 0.7 to 2.5 s
QUIET_SHARE = 0.3  # shots in which nothing happens, for each motion
QUIET = (24, 60)  # their frames
VISIBLE = 0.02  # a motion starts and ends where this share of its changes lies outside
COUNTS = {"train": 120, "val": 24, "test": 48}


class Shot(NamedTuple):
    """A scene and its objects; the label, the first frame of the motion, and the first one after it. A label None:
    nothing happens."""

    label: str | None
    scene: Scene
    objects: tuple[Object, ...]
    start: int = 0
    end: int = 0


def make_untrimmed(
    folder: str | Path,
    counts: Mapping[str, int] = COUNTS,
    *,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Makes ``counts[split]`` videos of ``train``, ``val`` and ``test``, and writes the manifest at the end.

    Each split has its own objects, artists and backgrounds, as in ``motions``. The videos depend on the seed and the
    split, but not on the number of workers. ``progress(done, total)`` is called with numbers of videos. Raises
    ConfigError for invalid counts, SaveError if the system cannot write.
    """
    from evl.data.manifests.manifest import write_manifest

    folder = Path(folder)
    validate_counts(counts, workers)
    jobs = [
        (folder / "videos" / split, split, seed, index) for split in SPLITS for index in range(counts.get(split, 0))
    ]
    (folder / MANIFEST).unlink(missing_ok=True)
    for done, _ in enumerate(made_in_processes(_make, jobs, workers), 1):
        progress(done, len(jobs))
    samples, splits = [], []
    for place, split, own_seed, index in jobs:
        rows = segments_of(split, index, own_seed)
        samples += [Sample(str(place / f"{index:06d}.mp4"), *row) for row in rows]
        splits += [split] * len(rows)
    write_manifest(folder / MANIFEST, samples, splits)


def segments_of(split: str, index: int, seed: int = 0) -> list[tuple[str, float, float]]:
    """(label, start, end in seconds) of the motions of one video, in order."""
    segments, first = [], 0
    for shot in shots_of(split, index, seed):
        if shot.label is not None:
            times = (round((first + frame) / RATE, 6) for frame in (shot.start, shot.end))
            segments.append((shot.label, *times))
        first += shot.scene.num_frames
    return segments


def draw_video(split: str, index: int, seed: int = 0) -> tuple[list[np.ndarray], int]:
    """(F frames (96,96,3) uint8, x264's rate factor) of one video."""
    rng = _generator(split, index, seed, 1)
    frames: list[np.ndarray] = []
    for shot in shots_of(split, index, seed):
        pictures = [thing.picture for thing in shot.objects]
        frames += draw_frames(shot.scene, pictures, rng, seed=seed, split=SPLITS.index(split))
    return frames, int(rng.integers(RATE_FACTORS[0], RATE_FACTORS[1] + 1))


def _generator(split: str, index: int, seed: int, number: int) -> Generator:
    return np.random.default_rng([seed, SPLITS.index(split), index, 3, number])  # 3: other seeds than those of motions


def shots_of(split: str, index: int, seed: int = 0) -> list[Shot]:
    """The shots of one video, in order."""
    rng = _generator(split, index, seed, 0)
    count = int(rng.integers(NUM_EVENTS[0], NUM_EVENTS[1] + 1))
    # videos of a split take the events in turns, so that all are about as frequent
    labels: list[str | None] = [EVENTS[(index * 7 + place) % len(EVENTS)] for place in range(count)]
    labels += [None] * int(rng.binomial(count, QUIET_SHARE))
    shots = []
    for place in rng.permutation(len(labels)):
        label = labels[place]
        template = label or str(rng.choice(EVENTS))
        things = choose_objects(split, str(rng.choice(category_names())), num_objects(template, rng), rng)
        scene = draw_scene(template, [thing.reach for thing in things], rng)
        if label is None:
            shots.append(Shot(None, _frozen(scene, rng), things))
            continue
        before, after = (int(rng.integers(PAUSE[0], PAUSE[1] + 1)) for _ in range(2))
        start, end = visible(scene)
        shots.append(Shot(label, _longer(scene, before, after, rng), things, before + start, before + end))
    return shots


def visible(scene: Scene) -> tuple[int, int]:
    """(the first frame that differs from the one before, the first frame after the last change) of a motion.

    The first and last 2 % of all that changes do not count, because motions start slowly.
    """
    change = np.zeros(scene.num_frames)
    for track in scene.tracks:
        size = float(track.size.mean())
        for values, scale in ((track.x, 1), (track.y, 1), (track.size, 1), (track.angle, size / 60),
                              (track.opacity, size)):  # fmt: skip
            change[1:] += np.abs(np.diff(values)) * scale
    done = np.cumsum(change) / change.sum()
    return int(np.argmax(done > VISIBLE)), int(np.argmax(done >= 1 - VISIBLE)) + 1


def _longer(scene: Scene, before: int, after: int, rng: Generator) -> Scene:
    """The scene with its first frame held before and its last frame after the motion."""
    tracks = tuple(_changed(track, lambda values: np.pad(values, (before, after), "edge")) for track in scene.tracks)
    return replace(scene, tracks=tracks, shake=draw_shake(scene.num_frames + before + after, rng))


def _frozen(scene: Scene, rng: Generator) -> Scene:
    """One frame of the scene for as long as a quiet shot."""
    count, place = int(rng.integers(QUIET[0], QUIET[1] + 1)), int(rng.integers(scene.num_frames))
    tracks = tuple(_changed(track, lambda values: np.full(count, values[place])) for track in scene.tracks)
    return replace(scene, tracks=tracks, shake=draw_shake(count, rng))


def _changed(track: Track, change: Callable[[np.ndarray], np.ndarray]) -> Track:
    return Track(*(change(getattr(track, one.name)) for one in fields(track)))


def _make(job: tuple[Path, str, int, int]) -> int:
    folder, split, seed, index = job
    frames, rate_factor = draw_video(split, index, seed)
    write_file(folder / f"{index:06d}.mp4", encode(frames, rate_factor), sync=False, one_of_many=True)
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evl.datasets.untrimmed", description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    for split, count in COUNTS.items():
        parser.add_argument(split, type=int, nargs="?", default=count, help=f"videos of the split {split} ({count})")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="other videos for another number (0)")
    options = parser.parse_args()
    counts = {split: getattr(options, split) for split in COUNTS}
    make_untrimmed(options.folder, counts, seed=options.seed)
    print(f"{sum(counts.values())} videos, {options.folder / MANIFEST}")


if __name__ == "__main__":
    main()
