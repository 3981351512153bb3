"""evl: video classifiers on frozen image encoders.

    model = evl.load("runs/mine")                       # a trained run
    clips = evl.read_views("clip.mp4", ...)             # (V,T,C,H,W), normalised
    logits = model(clips)                               # (V,Y)

Names are imported when they are first used, so ``import evl`` costs nothing and touches nothing.
"""

from typing import TYPE_CHECKING

from evl._version import __version__
from evl.lazy import first_used

_HOMES = {
    "BackboneSpec": "evl.types",
    "EVLDecoder": "evl.models.decoder",
    "EVLError": "evl.errors",
    "LayerFeatures": "evl.types",
    "Prediction": "evl.types",
    "RunConfig": "evl.config",
    "VideoClassifier": "evl.assembly",
    "clip_indices": "evl.video.sampling",
    "clip_starts": "evl.video.sampling",
    "create_backbone": "evl.backbones",
    "evaluate": "evl.evaluation",
    "explain": "evl.inference",
    "load": "evl.assembly",
    "load_release": "evl.assembly",
    "models": "evl.models",
    "predict": "evl.inference",
    "read_predictions": "evl.evaluation",
    "read_views": "evl.video.views",
    "train": "evl.training",
    "zero_shot": "evl.assembly",
}
__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from evl import models
    from evl.assembly import VideoClassifier, load, load_release, zero_shot
    from evl.backbones import create_backbone
    from evl.config import RunConfig
    from evl.errors import EVLError
    from evl.evaluation import evaluate, read_predictions
    from evl.inference import explain, predict
    from evl.models.decoder import EVLDecoder
    from evl.training import train
    from evl.types import BackboneSpec, LayerFeatures, Prediction
    from evl.video.sampling import clip_indices, clip_starts
    from evl.video.views import read_views


__getattr__ = first_used(__name__, _HOMES)


def __dir__():
    return sorted(__all__)
