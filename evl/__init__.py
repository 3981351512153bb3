"""evl: video classifiers on frozen image encoders.

    model = evl.train(data="videos/", out="runs/mine")  # or evl.load("runs/mine") for a trained run
    model.predict("clip.mp4").class_name
    clips = model.read_views("clip.mp4")                # (V,T,C,H,W), normalized
    logits = model(clips)                               # (V,Y)

Names are imported when they are first used, so ``import evl`` is fast.
"""

from typing import TYPE_CHECKING

from evl._version import __version__
from evl.runtime.import_path import first_used

_HOMES = {
    "BackboneSpec": "evl.types",
    "ClipDataset": "evl.api.clips",
    "EVLDecoder": "evl.models.decoder",
    "EVLError": "evl.errors",
    "LayerFeatures": "evl.types",
    "Live": "evl.inference.live",
    "Prediction": "evl.types",
    "RunConfig": "evl.config",
    "VideoClassifier": "evl.saving",
    "check": "evl.api.checking",
    "clip_indices": "evl.video.sampling",
    "clip_starts": "evl.video.sampling",
    "create_backbone": "evl.backbones",
    "create_model": "evl.api.clips",
    "embed": "evl.api.vectors",
    "embed_videos": "evl.api.vectors",
    "estimate_extraction": "evl.api.stores",
    "estimate_training": "evl.api.training",
    "evaluate": "evl.api.judging",
    "evaluate_timelines": "evl.api.timeline_judging",
    "explain": "evl.inference",
    "export": "evl.api.models",
    "extract": "evl.api.stores",
    "few_shot": "evl.api.training",
    "import_release": "evl.api.models",
    "list_backbones": "evl.backbones",
    "load": "evl.saving",
    "load_release": "evl.saving",
    "models": "evl.models",
    "open_store": "evl.api.stores",
    "predict": "evl.api.judging",
    "prepare": "evl.api.checking",
    "read_embeddings": "evl.inference.embedding",
    "read_manifest": "evl.data.manifests.manifest",
    "read_predictions": "evl.evaluation",
    "read_views": "evl.video.views",
    "sweep": "evl.api.training",
    "timeline": "evl.api.timelines",
    "timelines": "evl.api.timelines",
    "train": "evl.api.training",
    "verify_store": "evl.extraction.verify",
    "watch": "evl.api.watching",
    "write_timelines": "evl.api.timelines",
    "zero_shot": "evl.saving",
}
__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from evl import models
    from evl.api.checking import check, prepare
    from evl.api.clips import ClipDataset, create_model
    from evl.api.judging import evaluate, predict
    from evl.api.models import export, import_release
    from evl.api.stores import estimate_extraction, extract, open_store
    from evl.api.timeline_judging import evaluate_timelines
    from evl.api.timelines import timeline, timelines, write_timelines
    from evl.api.training import estimate_training, few_shot, sweep, train
    from evl.api.vectors import embed, embed_videos
    from evl.api.watching import watch
    from evl.backbones import create_backbone, list_backbones
    from evl.config import RunConfig
    from evl.data.manifests.manifest import read_manifest
    from evl.errors import EVLError
    from evl.evaluation import read_predictions
    from evl.extraction.verify import verify_store
    from evl.inference import explain
    from evl.inference.embedding import read_embeddings
    from evl.inference.live import Live
    from evl.models.decoder import EVLDecoder
    from evl.saving import VideoClassifier, load, load_release, zero_shot
    from evl.types import BackboneSpec, LayerFeatures, Prediction
    from evl.video.sampling import clip_indices, clip_starts
    from evl.video.views import read_views


__getattr__ = first_used(__name__, _HOMES)


def __dir__():
    return sorted(__all__)
