"""Backbone + decoder + head → a classifier; to and from disk, hub and the original release.

build (a config → a model and its card), saved (there and back), stored (a folder, read and not believed), formats
(versions), hub, readme (a model's page), release (the original's checkpoints), zero_shot
"""

from evl.assembly.classifier import VideoClassifier, build_classifier, load
from evl.assembly.release import kinetics400_class_names, load_release, save_release
from evl.assembly.saved import backbone_to_start, save_model, start_from
from evl.assembly.stored import find_model, read_card, weights_file
from evl.assembly.zero_shot import zero_shot
from evl.models.card import ModelCard

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
