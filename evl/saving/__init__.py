"""Backbone + decoder + head → a classifier; to and from disk, hub and the original release.

build (a config → a model and its card), saved (there and back), folder (of a model, here or on the hub: read and not
believed), page (about a model), release (the original's checkpoints), zero_shot
"""

from evl.models.card import ModelCard
from evl.saving.classifier import VideoClassifier, build_classifier, load
from evl.saving.folder import find_model, read_card, weights_file
from evl.saving.release import kinetics400_class_names, load_release, save_release
from evl.saving.saved import backbone_to_start, save_model, start_from
from evl.saving.zero_shot import zero_shot

__all__ = [
    "ModelCard",
    "VideoClassifier",
    "backbone_to_start",
    "build_classifier",
    "find_model",
    "kinetics400_class_names",
    "load",
    "load_release",
    "read_card",
    "save_model",
    "save_release",
    "start_from",
    "weights_file",
    "zero_shot",
]
