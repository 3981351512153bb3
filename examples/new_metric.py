"""Metrics of your own, in one file: the worst class, and the calibration error.

Both are computed wherever evl judges a model: on the screen, in metrics.json, TensorBoard, sweeps and the model's page
(PYTHONPATH names this file's folder):

    export PYTHONPATH=examples
    evl evaluate RUN --data DATA --metric new_metric:worst_class --metric new_metric:calibration_error
    evl train --data DATA --out RUN --set evaluation.metrics=new_metric:worst_class training.select_by=worst_class

docs/adding-a-metric.md says what evl asks of a metric.
"""

import numpy as np

from evl.evaluation import Judged, Metric


def worst_class(judged: Judged) -> float:
    """The accuracy of the class that is recognized least often, from 0 to 1. A plain function is enough: higher is
    better."""
    return min(float((judged.predicted[judged.labels == y] == y).mean()) for y in np.unique(judged.labels))


def _calibration_error(judged: Judged) -> float:
    """How far the best class's score is from the share of right predictions: the mean over ten bins of the score,
    weighted by their videos, in percent (Guo et al., arXiv:1706.04599)."""
    sure, right = judged.scores.max(1), judged.predicted == judged.labels
    bins = np.minimum((10 * sure).astype(int), 9)
    gaps = [abs((sure[bins == one] - right[bins == one]).sum()) for one in np.unique(bins)]
    return 100 * float(sum(gaps)) / len(judged)


# a Metric says more than a function: a title, a unit, and that lower is better
calibration_error = Metric(_calibration_error, "calibration error", higher_is_better=False)
