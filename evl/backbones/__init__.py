"""Frames → features: frozen image encoders."""

from evl.backbones.base import FrozenBackbone
from evl.backbones.registry import create_backbone, list_backbones

__all__ = ["FrozenBackbone", "create_backbone", "list_backbones"]
