"""Extraction end to end, from video files to a store on disk: how fast, and what bounds it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from made_videos import make_videos
from made_weights import backbone_settings
from settings import Row, Settings

from evl.config import RunConfig, replace
from evl.data.loader import default_num_workers, read_batches
from evl.data.splits import make_files
from evl.extraction.extract import extract
from evl.extraction.reading import ClipReader, clips_at_once, collate
from evl.extraction.verify import verify_store
from evl.extraction.work import plan_extraction
from evl.store import StoreOptions

CLIPS = 4  # a training video; the first one of each file decodes it whole, to find damage


def run(settings: Settings) -> Iterator[Row]:
    started = time.perf_counter()
    folder = make_videos(settings)
    files = list(folder.rglob("*.mp4"))
    size = sum(file.stat().st_size for file in files)
    yield {"what": "videos made", "count": len(files), "mb": size / 1e6, "seconds": time.perf_counter() - started}

    name, frames = ("evl_clip_tiny", 3) if settings.dry else ("vit_base_patch16_clip_quickgelu_224", 8)
    workers = 1 if settings.dry else default_num_workers()
    config = replace(
        RunConfig(), backbone=backbone_settings(settings, name), clip={"num_frames": frames, "stride": 4},
        model={"taps": "last 2" if settings.dry else "last 4"},
        data={"path": str(folder), "num_workers": workers, "val_fraction": 0.1},
        evaluation={"num_clips": 1},
    )  # fmt: skip
    options = StoreOptions(dtype="int8", clips_per_video=CLIPS)
    work = plan_extraction(config, settings.work / "nothing", options, device=settings.device)

    samples = work.splits["train"]
    together = clips_at_once(frames)
    rates = {}
    reader = ClipReader(work.description, "train", make_files(samples, work.config))
    for first, last in ((0, 1), (1, CLIPS)):
        keys = [(video, clip) for clip in range(first, last) for video in range(len(samples))]
        batches = [keys[start : start + together] for start in range(0, len(keys), together)]
        times, pixels = [time.perf_counter()], None
        for clips in read_batches(reader, batches, num_workers=workers, device=settings.device, collate=collate):
            times.append(time.perf_counter())
            pixels = clips.pixels if clips.pixels is not None and len(clips.pairs) == together else pixels
        what = "first clip of a file" if first == 0 else "later clips"
        rates[what] = steady(times, [len(batch) for batch in batches])
        yield {"what": f"reading alone, {what}", "workers": workers, "clips_a_second": rates[what]}

    if pixels is not None:
        work.features_of(pixels)
        started, count = time.perf_counter(), 1 if settings.dry else 20
        for _ in range(count):
            work.features_of(pixels)
        rates["computing"] = count * len(pixels) / (time.perf_counter() - started)
        yield {
            "what": "computing alone, B/16", "clips_a_second": rates["computing"],
            "images_a_second": frames * rates["computing"],
        }  # fmt: skip

    times, done = [time.perf_counter()], [0]

    def note(report) -> None:
        times.append(time.perf_counter())
        done.append(report.done)

    result = extract(config, settings.work / "store", options, device=str(settings.device), progress=note)
    counts = [b - a for a, b in itertools.pairwise(done)]
    rate = steady(times, counts)
    read = 1 / ((1 / rates["first clip of a file"] + (CLIPS - 1) / rates["later clips"]) / CLIPS)
    row = {
        "what": "extract, end to end", "workers": workers, "clips": result.num_clips, "seconds": result.seconds,
        "clips_a_second": rate, "images_a_second": frames * rate,
        "mb_a_second": rate * result.num_bytes / max(1, result.num_clips) / 1e6,
        "reading_could": read, "computing_could": rates.get("computing"),
        "ok": result.is_complete and not result.num_damaged,
    }  # fmt: skip
    if "computing" in rates:
        slower = "reading videos" if read < rates["computing"] else "computing and packing"
        lost = 1 - rate / min(read, rates["computing"])
        row["bound_by"] = f"{slower}; {max(0, 100 * lost):.0f} % below what that alone could"
    yield row
    how = dict(sample=4, seed=0, device=str(settings.device), num_workers=workers)
    checked = verify_store(settings.work / "store", **how, progress=False).clips
    yield {
        "what": "verify: the same features again", "clips": len(checked),
        "worst_of_allowed": max(one.difference for one in checked), "ok": all(one.is_equal for one in checked),
    }  # fmt: skip


def steady(times: list[float], counts: list[int]) -> float:
    """A second, from the first batch to the last: the start of the workers is not in it."""
    if len(times) < 3:
        return sum(counts) / max(1e-9, times[-1] - times[0])
    return sum(counts[1:]) / max(1e-9, times[-1] - times[1])
