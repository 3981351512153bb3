"""Trained models at work."""

from evl.inference.explanation import Explanation, explain
from evl.inference.predictor import Predictions, predict, predict_samples, predict_stored

__all__ = ["Explanation", "Predictions", "explain", "predict", "predict_samples", "predict_stored"]
