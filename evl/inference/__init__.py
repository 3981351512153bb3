"""Trained models at work."""

from evl.inference.predictor import Predictions, predict, predict_samples

__all__ = ["Predictions", "predict", "predict_samples"]
