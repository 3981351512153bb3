"""A collection of videos, looked at before training."""

from __future__ import annotations

import os
from collections.abc import Sequence

from evl.collections.check import CheckReport, check_samples
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import find_videos, read_manifest
from evl.data.notices import manifest_notices
from evl.errors import DataError, UnlabeledError
from evl.runtime.progress import Report, counting, showing
from evl.types import Sample


def check(
    data: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    layout: str = "auto",
    split_number: int = 1,
    labeled: bool = False,
    num_workers: int | None = None,
    progress: bool | Report = True,
) -> CheckReport:
    """What is in a collection of videos, and what of it is damaged: every file is decoded as training decodes it.

        found = evl.check("videos/")
        [(file.sample.path, file.problem) for file in found.damaged]

    ``data``, ``root``, ``layout``, ``split_number``: as for ``evl.read_manifest``; a folder may also hold videos
    without labels, unless ``labeled``. ``num_workers``: processes; None: one a core; 0: none, which is for files that
    are known not to crash the decoder. Raises DataError.
    """
    samples, splits, ignored, notices = _find(data, root=root, layout=layout, split_number=split_number)
    if labeled and any(sample.label is None for sample in samples):
        raise DataError(
            f"a manifest needs labels, but {data} has videos outside class folders; expected {data}/CLASS/VIDEO"
        )
    num_workers = default_num_workers() if num_workers is None else num_workers
    found = dict(splits=splits, ignored=ignored, notices=notices, num_workers=num_workers)
    with showing(progress) as report:
        count = counting(report, "checking", len(samples), "files")
        return check_samples(samples, **found, progress=lambda file: count(1))


def _find(
    data: str | os.PathLike, **options
) -> tuple[Sequence[Sample], Sequence[str] | None, Sequence[str], Sequence[str]]:
    """(samples, split of each, ignored files, what is odd); without labels where a folder has none."""
    try:
        found = read_manifest(data, **options)
    except UnlabeledError as error:
        videos, ignored, odd = find_videos(data)
        if not videos or options["layout"] != "auto":
            raise
        return [Sample(str(path)) for path in videos], None, ignored, [f"no labels, so not for training: {error}", *odd]
    found.require_videos()
    pairs = [(sample, split) for split, group in found.splits.items() for sample in group]
    return [sample for sample, _ in pairs], [split for _, split in pairs], found.ignored, manifest_notices(found)
