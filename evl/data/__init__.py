"""Lists of videos: manifests, checks, datasets and the order of training."""

from evl.data.draw import split_samples
from evl.data.manifest import Manifest, read_manifest, write_manifest

__all__ = ["Manifest", "read_manifest", "split_samples", "write_manifest"]
