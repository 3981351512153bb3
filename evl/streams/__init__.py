"""Streams: features of clips in batches, from videos, from a store, or from memory."""

from evl.streams.base import Batch, Features, Stream, Subset, Views

__all__ = ["Batch", "Features", "Stream", "Subset", "Views"]
