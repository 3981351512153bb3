"""Frames → features: frozen image encoders.

features   base (the contract), timm_vit, openai_clip, positions (other sizes)
names      registry, families, listing, counts (cost), refusals
weights    fetch (where they are) → weights, unpickle (files, not believed) → layouts (whose names) → loading, fit;
           what no tensor tells: activation, contradictions, beside (JSON in the same folder)
text       embedding, text, text_towers: the other half of a CLIP, for zero-shot
"""

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone, named
from evl.backbones.text.shared_space import ImageEmbedding

__all__ = ["FrozenBackbone", "ImageEmbedding", "Taps", "create_backbone", "list_backbones", "named"]
