"""Frames → features: frozen image encoders."""

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone, named

__all__ = ["FrozenBackbone", "Taps", "create_backbone", "list_backbones", "named"]
