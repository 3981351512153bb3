"""A store: the features of every clip, computed once by the frozen backbone and kept on disk (docs/store.md)."""

from evl.store.description import StoreDescription, StoreOptions
from evl.store.packing import Packed
from evl.store.store import FeatureStore, StoredClips, StoredSplit

__all__ = ["FeatureStore", "Packed", "StoreDescription", "StoreOptions", "StoredClips", "StoredSplit"]
