"""Untrimmed videos in training: samples of the time between labeled segments, and segments whose ends move."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evl.config import ClipConfig, DataConfig
from evl.data.index_file import IndexFile
from evl.errors import DataError, VideoError
from evl.runtime.text import clean_label
from evl.types import BACKGROUND, Sample
from evl.video.decode.index import frame_index
from evl.video.windows import WINDOW_SECONDS

STAYS = 0.5  # seconds; shorter segments are never made shorter, so that a frame stays inside
Splits = Mapping[str, Sequence[Sample]]


class Extent(NamedTuple):
    """How long a file is, and its frames per second."""

    seconds: float
    rate: float


def with_background(
    splits: Splits, data: DataConfig, clip: ClipConfig, extent_of: Callable[[str], Extent | None]
) -> dict[str, tuple[Sample, ...]]:
    """The splits with samples of background: stretches of time between the labeled segments of a file.

    In each split there are ``data.background`` of them for each segment. They are at least ``data.background_margin``
    seconds away from all segments of their file, in whatever split. Longer gaps have more of them, evenly spaced. A
    stretch is as long as a clip, or longer if the gap has room, but never longer than the gap. So two may overlap. A
    file whose rows are in several splits has background in the first one only.

    ``extent_of``: path → extent; None if the file cannot be read: then only gaps between its segments are used. Raises
    DataError if no row has times, or if the training videos have no such gap.
    """
    rows: dict[str, list[Sample]] = {}
    home: dict[str, str] = {}
    for split, samples in splits.items():
        for sample in samples:
            path = os.path.abspath(sample.path)
            rows.setdefault(path, []).append(sample)
            home.setdefault(path, split)
    untrimmed = {path: group for path, group in rows.items() if all(map(_has_times, group))}
    if not untrimmed:
        raise DataError(
            f"data.background={data.background:g} draws from the time between labeled segments, but no row of the list "
            "has start_seconds or end_seconds; leave it out, or list segments"
        )
    extents = {path: extent_of(path) for path in untrimmed}
    found = {}
    for split, samples in splits.items():
        wanted = round(data.background * sum(not _is_background(one) for one in samples))
        gaps = []
        for path, group in untrimmed.items():
            if home[path] == split:
                gaps += _gaps(group, extents[path], data.background_margin, clip)
        if not gaps and split == "train" and wanted:
            raise DataError(
                f"data.background={data.background:g}: the training videos have no time that is "
                f"{data.background_margin:g} s away from all labeled segments; lower data.background_margin, or leave "
                "data.background out"
            )
        found[split] = (*samples, *_stretches(gaps, wanted))
    return found


class _Gap(NamedTuple):
    row: Sample  # of the same file
    start: float
    end: float
    clip_seconds: float
    is_whole: bool  # whether clips are spread over the whole stretch

    @property
    def seconds(self) -> float:
        return self.end - self.start


def _gaps(rows: Sequence[Sample], extent: Extent | None, margin: float, clip: ClipConfig) -> list[_Gap]:
    """The parts of a file that are ``margin`` seconds away from all rows."""
    covered = sorted(((one.start_seconds or 0.0) - margin,
                      np.inf if one.end_seconds is None else one.end_seconds + margin) for one in rows)  # fmt: skip
    known = max(one.end_seconds or one.start_seconds or 0.0 for one in rows)
    end_of_file = known if extent is None else extent.seconds
    gaps, free_from = [], 0.0
    for start, end in (*covered, (end_of_file, end_of_file)):
        if min(start, end_of_file) > free_from:
            seconds = _clip_seconds(clip, extent)
            stop = float(min(start, end_of_file))
            gaps.append(_Gap(rows[0], free_from, stop, seconds, clip.sampling == "segment"))
        free_from = max(free_from, float(end))
    return gaps


def _clip_seconds(clip: ClipConfig, extent: Extent | None) -> float:
    """How long a clip is: up to the end of its last frame."""
    if clip.sampling == "segment":
        return WINDOW_SECONDS
    if clip.frames_per_second is not None:
        return clip.num_frames / clip.frames_per_second
    rate = 25.0 if extent is None or extent.rate <= 0 else extent.rate
    return ((clip.num_frames - 1) * clip.stride + 1) / rate


def _stretches(gaps: Sequence[_Gap], wanted: int) -> list[Sample]:
    """``wanted`` samples, shared out by the lengths of the gaps (largest remainders)."""
    if not gaps or not wanted:
        return []
    shares = np.array([gap.seconds for gap in gaps])
    shares = shares / shares.sum() * wanted
    counts = np.floor(shares).astype(int)
    order = np.argsort(counts - shares, kind="stable")
    counts[order[: wanted - int(counts.sum())]] += 1
    samples = []
    for gap, count in zip(gaps, counts.tolist(), strict=True):
        length = gap.clip_seconds if gap.is_whole else max(gap.clip_seconds, gap.seconds / max(1, count))
        length = min(length, gap.seconds)
        room = gap.seconds - length
        for place in range(count):
            start = gap.start + (room / 2 if count == 1 else room * place / (count - 1))
            times = round(start, 6), round(start + length, 6)
            samples.append(Sample(gap.row.path, BACKGROUND, *times, gap.row.group))
    return list(dict.fromkeys(samples))


def _has_times(sample: Sample) -> bool:
    return sample.start_seconds is not None or sample.end_seconds is not None


def _is_background(sample: Sample) -> bool:
    return sample.label is not None and clean_label(sample.label) == BACKGROUND


def extent_reader(data: DataConfig) -> Callable[[str], Extent | None]:
    """Reads the extent of a file from the index file of a config, or else from the file's packets."""
    known = None if data.index is None else IndexFile(data.index)

    def extent_of(path: str) -> Extent | None:
        try:
            index = (known.find(path) if known is not None else None) or frame_index(path)
        except VideoError:
            return None
        times = np.asarray(index.times_seconds, np.float64)
        usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        return Extent(float(times[-1] - times[0]) + usual, 1 / usual if usual else 0.0)

    return extent_of


def jittered(sample: Sample, seconds: float, seed: Sequence[int]) -> tuple[float | None, float | None]:
    """(start, end) of a segment with each end moved by up to ``seconds``, in or out, and drawn from ``seed``.

    At most a quarter of the segment is left out at each end, and nothing of one shorter than half a second. Samples of
    whole files and of background stay.
    """
    start, end = sample.start_seconds, sample.end_seconds
    if not seconds or not _has_times(sample) or _is_background(sample):
        return start, end
    first, last = np.random.default_rng([*seed, 1]).uniform(-seconds, seconds, 2).tolist()
    length = np.inf if end is None else end - (start or 0.0)
    inside = length / 4 if length >= STAYS else 0.0
    start = None if start is None else max(0.0, start + min(first, inside))
    return start, None if end is None else end + max(last, -inside)
