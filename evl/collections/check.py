"""Checks a collection: decodes every video whole, and reports damaged videos, duplicates and notices."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evl.collections.material import frame_rate_notices, rate_of
from evl.config import DataConfig, RunConfig
from evl.data.draw import refuse_shared_groups, split_samples
from evl.data.notices import several_labels, split_notices
from evl.errors import DataError, VideoError
from evl.runtime.parallel import Crash, each_in_process, time_limit
from evl.types import Notice, Sample, VideoInfo
from evl.video.decode.frame_folder import frame_files
from evl.video.decode.index import FrameIndex
from evl.video.decode.missing import os_reason, read_patiently
from evl.video.decode.reader import find_part, read_clip
from evl.video.notices import Length, long_videos_notice, notices
from evl.video.plans import Numbered


@dataclass(frozen=True)
class FileReport:
    """The result for one sample: ``info`` and the frame ``index`` if it can be used, else ``problem``.

    ``stamp``: its bytes and its time of change in ns, before it was read. ``notices``: those about a good file.
    """

    sample: Sample
    size_bytes: int
    info: VideoInfo | None = None
    problem: str | None = None
    index: FrameIndex | None = None
    stamp: tuple[int, int] = (0, 0)
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """The result for a collection.

    ``duplicates``: groups of files with the same content. ``ignored``: files that are not videos. ``notices``: lines
    about the collection as a whole. ``splits``: the split of each file, if there are splits.
    """

    files: tuple[FileReport, ...]
    duplicates: tuple[tuple[str, ...], ...]
    ignored: tuple[str, ...]
    notices: tuple[str, ...] = ()
    splits: tuple[str, ...] | None = None

    @property
    def good(self) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.info is not None)

    @property
    def whole_files(self) -> tuple[FileReport, ...]:
        """The good ones that are no part of a file, each file once."""
        whole = {file.sample.path: file for file in self.good if file.sample.name == file.sample.path}
        return tuple(whole.values())

    @property
    def damaged(self) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.problem is not None)

    def classes(self) -> dict[str, tuple[int, int]]:
        """Returns label -> (number of good files, number of damaged files), sorted by label."""
        good = Counter(file.sample.label for file in self.good)
        damaged = Counter(file.sample.label for file in self.damaged)
        return {label: (good[label], damaged[label]) for label in sorted((good | damaged), key=str)}

    def file_notices(self) -> dict[str, list[tuple[str, str]]]:
        """Returns notice -> (path, detail) of each good file that has this notice."""
        files: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for file in self.good:
            for notice in file.notices:
                files[notice.what].append((file.sample.path, notice.detail))
        return dict(files)


def check_file(sample: Sample) -> FileReport:
    """Decodes a whole file, or the sample's part of it, exactly as training and evaluation decode it."""
    try:
        return read_patiently(lambda: _checked(sample))
    except VideoError as error:
        return FileReport(sample, _size(sample.path), problem=error.reason)


def _checked(sample: Sample) -> FileReport:
    """The report of a good file. Raises VideoError."""
    try:
        size, stat = _size(sample.path), os.stat(sample.path)  # before reading, so that a later change shows
        frames, index, _ = read_clip(
            sample.path,
            Numbered(sample.path, (0,)),
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
            verify=True,
        )
        file_notices = notices(sample.path, index)
    except (OSError, ValueError) as error:
        raise VideoError(sample.path, os_reason(error)) from None
    height, width = frames.shape[-2:]
    info = VideoInfo(sample.path, tuple(index.times_seconds.tolist()), width, height, index.codec)
    index = replace(index)  # a copy without its cached values, which would have to travel between processes
    return FileReport(sample, size, info, index=index, stamp=(stat.st_size, stat.st_mtime_ns), notices=file_notices)


def _check_in_process(item: tuple[int, Sample]) -> FileReport:
    with time_limit(item[1].path):
        return check_file(item[1])


def check_samples(
    samples: Sequence[Sample],
    *,
    splits: Sequence[str] | None = None,
    ignored: Sequence[str] = (),
    notices: Sequence[str] = (),
    num_workers: int = 0,
    progress: Callable[[FileReport], None] = lambda report: None,
) -> CheckReport:
    """Checks all samples and returns a report. A decoder that kills its process counts as one damaged file.

    Args:
        samples: The samples of the collection.
        splits: The split of each sample, if there are splits.
        ignored: Files that are not videos, for the report.
        notices: Lines about the list of samples, for the report.
        num_workers: The number of worker processes; 0 checks in this process, which a decoder may then kill.
        progress: Called with the report of each file.
    """
    reports: dict[int, FileReport] = {}
    items = enumerate(samples)
    if num_workers:
        results = each_in_process(_check_in_process, items, num_workers)
    else:
        results = ((item, check_file(item[1])) for item in items)
    for (place, sample), report in results:
        if isinstance(report, Crash):
            report = FileReport(sample, _size(sample.path), problem=report.reason)
        reports[place] = report
        progress(report)
    reports = [reports[place] for place in range(len(samples))]
    same = _same_content(reports)
    split_lines = _label_and_split_notices(samples, splits or ["all"] * len(samples), same)
    notices = (*notices, *split_lines, *_rate_notices(reports), *_length_notices(reports))
    splits = None if splits is None else tuple(splits)
    return CheckReport(tuple(reports), _duplicates(reports, same), tuple(ignored), notices, splits)


def _label_and_split_notices(
    samples: Sequence[Sample], splits: Sequence[str], same: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Returns notices about labels and splits. Files with the same content count as one file."""
    first = {path: group[0] for group in same for path in group}
    real_paths = {path: os.path.realpath(path) for path in {sample.path for sample in samples}}
    file_of = {path: first.get(real_path, real_path) for path, real_path in real_paths.items()}
    notices = several_labels(samples, file_of.__getitem__)
    by_split: dict[str, list[Sample]] = defaultdict(list)
    for sample, split in zip(samples, splits, strict=True):
        by_split[split].append(replace(sample, path=file_of[sample.path]))
    if "val" in by_split:
        notices += split_notices(by_split.get("train", ()), by_split["val"])
    try:
        refuse_shared_groups(by_split)
        training = by_split.get("train") or by_split.get("all") or ()
        if "val" not in by_split and training and all(sample.label is not None for sample in training):
            split_samples(training, val_fraction=DataConfig().val_fraction, seed=0)
    except DataError as error:
        notices += (f"evl train would refuse this: {error}",)
    return notices


def _length_notices(reports: Sequence[FileReport]) -> tuple[str, ...]:
    config, lengths = RunConfig(), {}
    for report in reports:
        if report.index is not None:
            sample, times = report.sample, report.index.times_seconds
            first, count = find_part(sample.path, report.index, sample.start_seconds, sample.end_seconds)
            lengths[sample] = Length(count, float(times[first + count - 1] - times[first]))
    notice = long_videos_notice(lengths, config.clip, config.evaluation.num_clips)
    return () if notice is None else (f"{notice} (with the default clips)",)


def _rate_notices(reports: Sequence[FileReport]) -> tuple[str, ...]:
    infos = [report.info for report in reports if report.info is not None]
    rates = [(info.path, rate_of(info.times_seconds, info.codec)) for info in infos]
    return frame_rate_notices([(path, rate) for path, rate in rates if rate is not None])


def _size(path: str) -> int:
    try:
        if os.path.isdir(path):
            return sum(file.stat().st_size for file in frame_files(path))
        return os.path.getsize(path)
    except (OSError, VideoError):
        return 0


def _same_content(reports: Sequence[FileReport]) -> list[list[str]]:
    """Returns groups of different files with the same content. Only files of equal size are read."""
    by_size: dict[int, set[str]] = defaultdict(set)
    for report in reports:
        if report.info is not None and os.path.isfile(report.sample.path):
            by_size[report.size_bytes].add(os.path.realpath(report.sample.path))
    by_content: dict[str, list[str]] = defaultdict(list)
    for paths in by_size.values():
        if len(paths) > 1:
            for path in sorted(paths):
                with open(path, "rb") as file:
                    by_content[hashlib.file_digest(file, "sha256").hexdigest()].append(path)
    return [group for group in by_content.values() if len(group) > 1]


def _duplicates(reports: Sequence[FileReport], same: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Returns groups of different files with the same content, and groups of equal rows: the same file, or part of a
    file, that is listed more than once, with its labels."""
    listed: dict[tuple, list[str]] = defaultdict(list)
    for report in reports:
        sample = report.sample
        key = os.path.realpath(sample.path), sample.start_seconds, sample.end_seconds
        listed[key].append(f"{sample.name} ({sample.label})")
    groups = [*same, *listed.values()]
    return tuple(tuple(group) for group in groups if len(group) > 1)
