"""Trained models at work."""

from evl.inference.embedding import Embeddings, embed, embed_stored
from evl.inference.explanation import Explanation, explain
from evl.inference.predictor import Predictions, predict, predict_samples, predict_stored, predict_videos

__all__ = [
    "Embeddings",
    "Explanation",
    "Predictions",
    "embed",
    "embed_stored",
    "explain",
    "predict",
    "predict_samples",
    "predict_stored",
    "predict_videos",
]
