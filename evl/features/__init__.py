"""Features on disk: what the frozen backbone says of every clip, computed once (docs/store.md)."""

from evl.features.description import StoreDescription, StoreOptions
from evl.features.packing import Packed
from evl.features.store import FeatureStore, StoredClips, StoredSplit

__all__ = ["FeatureStore", "Packed", "StoreDescription", "StoreOptions", "StoredClips", "StoredSplit"]
