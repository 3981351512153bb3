"""Frames → features: frozen image encoders."""

from evl.backbones.base import FrozenBackbone
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone

__all__ = ["FrozenBackbone", "create_backbone", "list_backbones"]
