"""What is in a collection of videos, and what of it is damaged."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from evl.data.loader import read_batches
from evl.errors import VideoError
from evl.types import Sample, VideoInfo
from evl.video.index import FrameIndex
from evl.video.reader import read_clip


@dataclass(frozen=True)
class FileReport:
    """One file: ``info`` if it can be used, and the ``index`` of its frames, else ``problem``."""

    sample: Sample
    size_bytes: int
    info: VideoInfo | None = None
    problem: str | None = None
    index: FrameIndex | None = None


@dataclass(frozen=True)
class CheckReport:
    """A collection: every file, groups of files with equal content, and files that are no videos."""

    files: tuple[FileReport, ...]
    duplicates: tuple[tuple[str, ...], ...]
    ignored: tuple[str, ...]

    @property
    def good(self) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.info is not None)

    @property
    def damaged(self) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.problem is not None)

    def classes(self) -> dict[str, tuple[int, int]]:
        """label -> (good, damaged), by name."""
        good = Counter(file.sample.label for file in self.good)
        damaged = Counter(file.sample.label for file in self.damaged)
        return {label: (good[label], damaged[label]) for label in sorted((good | damaged), key=str)}


def check_file(sample: Sample) -> FileReport:
    """Decodes the whole file, or the sample's part of it, exactly as training and evaluation will."""
    size = _size(sample.path)
    try:
        frames, index = read_clip(
            sample.path,
            lambda count: [0],
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
            verify=True,
        )
    except VideoError as error:
        return FileReport(sample, size, problem=error.reason)
    height, width = frames.shape[-2:]
    info = VideoInfo(sample.path, tuple(index.times_seconds.tolist()), width, height, index.codec)
    return FileReport(sample, size, info, index=replace(index))  # without what it has worked out so far


class _Files(Dataset):
    """``dataset[index]`` -> FileReport."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples

    def __getitem__(self, index: int) -> FileReport:
        return check_file(self.samples[index])

    def sample_of(self, index: int) -> int:
        return index

    def failed(self, index: int, reason: str) -> FileReport:
        return FileReport(self.samples[index], _size(self.samples[index].path), problem=reason)


def check_samples(
    samples: Sequence[Sample],
    *,
    ignored: Sequence[str] = (),
    num_workers: int = 0,
    progress: Callable[[FileReport], None] = lambda report: None,
) -> CheckReport:
    """Checks all files, in ``num_workers`` processes (0: in this one); a decoder that kills its process is one damaged
    file. ``progress`` hears of each."""
    reports: list[FileReport] = []
    batches = [[index] for index in range(len(samples))]
    workers = min(num_workers, len(samples))
    for batch in read_batches(_Files(samples), batches, num_workers=workers, device=torch.device("cpu"), collate=list):
        reports += batch
        progress(batch[0])
    return CheckReport(tuple(reports), _duplicates(reports), tuple(ignored))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _duplicates(reports: Sequence[FileReport]) -> tuple[tuple[str, ...], ...]:
    """Groups of different files with the same content (only files of equal size are read), and of the same file, or
    part of a file, that is listed more than once, with its labels."""
    by_size: dict[int, set[str]] = defaultdict(set)
    for report in reports:
        if report.info is not None:
            by_size[report.size_bytes].add(os.path.realpath(report.sample.path))
    by_content: dict[str, list[str]] = defaultdict(list)
    for paths in by_size.values():
        if len(paths) > 1:
            for path in sorted(paths):
                with open(path, "rb") as file:
                    by_content[hashlib.file_digest(file, "sha256").hexdigest()].append(path)
    listed: dict[tuple, list[str]] = defaultdict(list)
    for report in reports:
        sample = report.sample
        key = os.path.realpath(sample.path), sample.start_seconds, sample.end_seconds
        listed[key].append(f"{sample.name} ({sample.label})")
    groups = [*by_content.values(), *listed.values()]
    return tuple(tuple(group) for group in groups if len(group) > 1)


def missing_files(samples: Sequence[Sample]) -> dict[int, str]:
    """index → reason of all samples whose file is missing: seen at once, before hours of training."""
    return {index: "no such file" for index, sample in enumerate(samples) if not Path(sample.path).is_file()}
