"""Frames → features: frozen image encoders.

features   base (the contract), timm_vit, openai_clip, from_outside, positions (other image sizes), projections
names      registry, families, listing, counts (cost), refusals
weights/   fetch finds or downloads a file; files and torchscript read it; layouts recognizes its names; loading
           fills the model; activation and contradictions check what no tensor records; sidecar reads JSON files
text/      the text towers of CLIPs, for zero-shot
"""

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.listing import list_backbones
from evl.backbones.registry import create_backbone, parse_backbone
from evl.backbones.text.shared_space import ImageEmbedding

__all__ = ["FrozenBackbone", "ImageEmbedding", "Taps", "create_backbone", "list_backbones", "parse_backbone"]
