"""Models against labelled videos: views, counts, reports."""

from evl.evaluation.evaluate import Evaluation, evaluate
from evl.evaluation.metrics import Metrics, compute_metrics, mean_interval, wilson_interval
from evl.evaluation.neighbours import NeighbourScores, neighbour_scores
from evl.evaluation.report import write_evaluation
from evl.evaluation.saved_predictions import SavedPredictions, read_predictions, write_predictions
from evl.evaluation.stored import backbone_for, evaluate_heads, evaluate_stored, load_for_store, stored_protocol

__all__ = [
    "Evaluation",
    "Metrics",
    "NeighbourScores",
    "SavedPredictions",
    "backbone_for",
    "compute_metrics",
    "evaluate",
    "evaluate_heads",
    "evaluate_stored",
    "load_for_store",
    "mean_interval",
    "neighbour_scores",
    "read_predictions",
    "stored_protocol",
    "wilson_interval",
    "write_evaluation",
    "write_predictions",
]
