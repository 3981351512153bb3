"""The one clip of every video, decoded once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evl.config import ClipConfig
from evl.data.dataset import EvaluationViews, Files, collate_views
from evl.data.loader import read_batches
from evl.errors import RunError
from evl.types import Preprocessing, Sample

# half the memory of float32; the rounding error is a thirtieth of the step between two values of a byte
PIXELS = torch.float16


def read_clips(
    samples: Sequence[Sample],
    clip: ClipConfig,
    preprocessing: Preprocessing,
    *,
    num_workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The view by which each video will be judged: normalized pixels (n,T,3,H,W) of ``PIXELS``, in order.

    Sampling, decoding and resizing are those of ``evl evaluate`` with 1x1 views. Raises RunError for a video that
    cannot be read.
    """
    files = Files(samples, verify=False)
    dataset = EvaluationViews(files, None, clip, preprocessing, num_clips=1, num_crops=1)
    clips = torch.empty(len(samples), clip.num_frames, 3, *preprocessing.image_size, dtype=PIXELS)
    batches = [range(start, min(start + 32, len(samples))) for start in range(0, len(samples), 32)]
    done = 0
    for batch in read_batches(
        dataset, batches, num_workers=num_workers, device=torch.device("cpu"), collate=collate_views
    ):
        for index, reason in batch.damaged.items():
            raise RunError(f"{samples[index].path}: a video of the demo cannot be read ({reason}); try again")
        clips[list(batch.indices)] = batch.clips.to(PIXELS)
        done += len(batch.indices)
        progress(done)
    return clips
