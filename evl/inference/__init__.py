"""Using trained models: predictions, vectors, explanations."""

from evl.inference.embedding import embed
from evl.inference.explanation import explain
from evl.inference.predictor import predict_videos, predict_views, views_for

__all__ = ["embed", "explain", "predict_videos", "predict_views", "views_for"]
