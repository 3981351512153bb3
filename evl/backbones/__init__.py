"""Frames → features: frozen image encoders."""

from evl.backbones.base import FrozenBackbone
from evl.backbones.embedding import ImageEmbedding
from evl.backbones.registry import create_backbone, list_backbones

__all__ = ["FrozenBackbone", "ImageEmbedding", "create_backbone", "list_backbones"]
