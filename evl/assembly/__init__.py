"""Backbone + decoder + head → a classifier; from a config, to and from disk, from the original release."""

from evl.assembly.build import ModelCard, build_classifier
from evl.assembly.release import load_release
from evl.assembly.saved import load, read_card, save_model
from evl.assembly.zero_shot import zero_shot

__all__ = ["ModelCard", "build_classifier", "load", "load_release", "read_card", "save_model", "zero_shot"]
