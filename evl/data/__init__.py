"""Lists of labeled videos, the datasets made of them, and the order in which training reads them."""

from typing import TYPE_CHECKING

from evl.runtime.lazy import first_used

# Each name is imported at its first use: code that needs only class names does not import the video decoders.
_HOMES = {
    "Manifest": "evl.data.manifests.manifest",
    "read_manifest": "evl.data.manifests.manifest",
    "split_samples": "evl.data.draw",
    "write_manifest": "evl.data.manifests.manifest",
}
__all__ = ["Manifest", "read_manifest", "split_samples", "write_manifest"]

if TYPE_CHECKING:
    from evl.data.draw import split_samples
    from evl.data.manifests.manifest import Manifest, read_manifest, write_manifest

__getattr__ = first_used(__name__, _HOMES)
