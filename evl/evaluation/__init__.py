"""Models against labelled videos: views, counts, reports."""

from evl.evaluation.evaluate import Evaluation, evaluate_views, protocol_of
from evl.evaluation.metrics import (
    METRICS,
    Judged,
    Metric,
    Metrics,
    Score,
    compute_metrics,
    interval_of_share,
    mean_interval,
    wilson_interval,
)
from evl.evaluation.neighbors import NeighborScores, neighbor_scores
from evl.evaluation.report import held_for_scores, write_evaluation
from evl.evaluation.saved_predictions import SavedPredictions, read_predictions, write_predictions
from evl.evaluation.stored import encoder_for, load_for_store, views_of_store

__all__ = [
    "METRICS", "Evaluation", "Judged", "Metric", "Metrics", "NeighborScores", "SavedPredictions", "Score",
    "compute_metrics", "encoder_for", "evaluate_views", "held_for_scores", "interval_of_share",
    "load_for_store", "mean_interval", "neighbor_scores", "protocol_of", "read_predictions", "views_of_store",
    "wilson_interval", "write_evaluation", "write_predictions",
]  # fmt: skip
