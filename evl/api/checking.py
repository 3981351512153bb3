"""A collection of videos before training: checked, and copied into a form that is cheap to read."""

from __future__ import annotations

import os
from collections.abc import Sequence

from evl.collections.check import CheckReport, check_samples
from evl.collections.copy_video import CopySettings
from evl.collections.prepare import PrepareReport
from evl.collections.prepare import prepare as make_copies
from evl.data.index_file import write_index
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import find_videos, read_manifest, write_manifest
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
    manifest: str | os.PathLike | None = None,
    index: str | os.PathLike | None = None,
    num_workers: int | None = None,
    progress: bool | Report = True,
) -> CheckReport:
    """What is in a collection of videos, and what of it is damaged: every file is decoded as training decodes it.

        found = evl.check("videos/")
        [(file.sample.path, file.problem) for file in found.damaged]

    Args:
        data, root, layout, split_number: as for ``evl.read_manifest``; a folder may also hold videos without labels.
        manifest: where a list (.csv) of the good videos is written, which need labels then; None: nowhere.
        index: where an index of the good files' frames is written, for the setting ``data.index``; None: nowhere.
        num_workers: processes; None: one a core; 0: none, for files that are known not to crash the decoder.
        progress: as for ``evl.train``.

    Raises DataError.
    """
    samples, splits, ignored, notices = _find(data, root=root, layout=layout, split_number=split_number)
    if manifest is not None and any(sample.label is None for sample in samples):
        raise DataError(
            f"a manifest needs labels, but {data} has videos outside class folders; expected {data}/CLASS/VIDEO"
        )
    num_workers = default_num_workers() if num_workers is None else num_workers
    found = dict(splits=splits, ignored=ignored, notices=notices, num_workers=num_workers)
    with showing(progress) as report:
        count = counting(report, "checking", len(samples), "files")
        result = check_samples(samples, **found, progress=lambda file: count(1))
    if manifest is not None:
        kept = [place for place, file in enumerate(result.files) if file.info is not None]
        named = [splits[place] for place in kept] if splits and set(splits) != {"all"} else None
        write_manifest(manifest, [samples[place] for place in kept], named)
    if index is not None:
        write_index(index, [(file.sample.path, file.index, file.stamp) for file in result.whole_files])
    return result


def prepare(
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    short_side: int = 256,
    gop: int = 1,
    every: int = 1,
    quality: int = 20,
    num_workers: int | None = None,
    progress: bool | Report = True,
) -> PrepareReport:
    """Makes copies of a collection that are cheap to read in training: small, every frame a key frame, no sound.

        evl.prepare("videos/", "copies/").manifest

    Args:
        data: a folder of videos, or a manifest.
        out: the folder of the copies, with the same paths below it; what is complete there is kept.
        short_side: pixels, never enlarged.
        gop: frames from key frame to key frame.
        every: every n-th frame is kept, at its time.
        quality: x264's rate factor: less is better and larger.
        num_workers: files at a time; None: one a core.
        progress: as for ``evl.train``.

    ``.damaged`` are the files that could not be copied. Raises ConfigError, DataError, RunError where ``out`` holds
    something else, SaveError.
    """
    settings = CopySettings(short_side=short_side, gop=gop, every=every, quality=quality)
    with showing(progress) as report:
        return make_copies(data, out, settings, num_workers=num_workers, progress=report)


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
