"""Frames → features: frozen image encoders.

features   base (the contract), timm_vit (sizes, cost, positions for other image sizes), embedded, projections
names      registry, listing, refusals
weights/   fetch finds or downloads a file; files reads it; layouts recognizes its names; loading fills the model;
           unrecorded checks what no tensor records
text/      the text towers of CLIPs, for zero-shot
"""

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone, parse_backbone
from evl.backbones.text.embeddings import ImageEmbedding

__all__ = ["FrozenBackbone", "ImageEmbedding", "Taps", "create_backbone", "list_backbones", "parse_backbone"]
