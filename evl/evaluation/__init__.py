"""Models against labelled videos: views, counts, reports."""

from evl.evaluation.evaluate import Evaluation, evaluate
from evl.evaluation.metrics import Metrics, compute_metrics
from evl.evaluation.report import write_evaluation

__all__ = ["Evaluation", "Metrics", "compute_metrics", "evaluate", "write_evaluation"]
