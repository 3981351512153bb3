"""Frames → features: frozen image encoders."""

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.embedding import ImageEmbedding
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone, named

__all__ = ["FrozenBackbone", "ImageEmbedding", "Taps", "create_backbone", "list_backbones", "named"]
