"""Trained models at work."""

from evl.inference.embedding import Embeddings, embed
from evl.inference.explanation import Explanation, explain
from evl.inference.predictor import Predictions, predict, predict_samples

__all__ = ["Embeddings", "Explanation", "Predictions", "embed", "explain", "predict", "predict_samples"]
