"""95 % confidence intervals: of a share of videos, and of a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution
# those of Student's t, for 1, 2, 3, … degrees of freedom
_STUDENT = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814, 2.20099,
            2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302)  # fmt: skip


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share, in percent: Wilson's, which holds for few videos and near 0 and 100 too.

    It is about chance in drawing ``total`` videos, not about other seeds of training. No videos tell nothing: 0 to 100.
    """
    if not 0 <= hits <= total:
        raise ValueError(f"{hits} hits of {total} videos: expected no more hits than videos")
    if not total:
        return 0.0, 100.0
    share, z = hits / total, _NORMAL
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): of percents over seeds, with Student's 95 % confidence interval of the mean, cut to 0–100.

    2 to 20 values, or ValueError.
    """
    if not 2 <= len(values) <= len(_STUDENT) + 1:
        raise ValueError(f"{len(values)} values: expected 2 to {len(_STUDENT) + 1}")
    mean = float(np.mean(values))
    half = _STUDENT[len(values) - 2] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(100.0, mean + half)
