"""Features of clips, batch by batch: from videos, from a store, or from memory (DESIGN: features are the waist)."""

from evl.streams.base import Batch, Features, Stream, Subset, Views
from evl.streams.cached import Cached
from evl.streams.live import Live, training_clips, video_views
from evl.streams.stored import Stored, stored_training_clips, stored_views

__all__ = [
    "Batch", "Cached", "Features", "Live", "Stored", "Stream", "Subset", "Views", "stored_training_clips",
    "stored_views", "training_clips", "video_views",
]  # fmt: skip
