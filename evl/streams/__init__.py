"""Features of clips, batch by batch: from videos, from a store, or from memory. Features are the waist of the house."""

from evl.streams.base import Batch, Features, Stream, Subset, Views

__all__ = ["Batch", "Features", "Stream", "Subset", "Views"]
