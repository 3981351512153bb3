"""Trained models at work."""

from evl.inference.embedding import Embeddings, embed
from evl.inference.explanation import Explanation, explain
from evl.inference.predictor import Predictions, predict, predict_videos, predict_views, views_for
from evl.inference.reading import Reader, read

__all__ = [
    "Embeddings", "Explanation", "Predictions", "Reader", "embed", "explain", "predict", "predict_videos",
    "predict_views", "read", "views_for",
]  # fmt: skip
