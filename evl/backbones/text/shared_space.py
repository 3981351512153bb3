"""Maps the tokens of an encoder's last block to the space that it shares with text."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from timm.layers import global_pool_nlc
from torch import Tensor, nn

from evl.backbones.timm_vit import TimmBackbone


class ImageEmbedding(nn.Module):
    """Tokens of the last block (F,L,D) -> unit vectors (F,E): the layers after the blocks of a CLIP-like encoder.

    The final norm, the pooling (class token, mean, or attention) and the norm after it are copies of the backbone's.
    The projection is the identity with bias 0 until weights are loaded. The module is frozen, and computes in the dtype
    of its weights.
    """

    def __init__(self, backbone: TimmBackbone, width: int):
        super().__init__()
        vit = backbone.vit
        self.norm, self.attn_pool, self.fc_norm = copy.deepcopy((vit.norm, vit.attn_pool, vit.fc_norm))
        self.pool_type = vit.global_pool
        self.num_prefix_tokens = vit.num_prefix_tokens
        # in timm, the pooling of a VisionTransformer leaves out prefix tokens unless this is True; Eva's reads all
        self.pools_prefix = getattr(vit, "pool_include_prefix", None)
        self.projection = nn.Linear(backbone.spec.width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.attn_pool is None and self.pool_type == "token":
            tokens = tokens[:, :1]
        x = self.norm(tokens.to(self.projection.weight.dtype))
        if self.attn_pool is not None:
            x = self.attn_pool(x[:, self.num_prefix_tokens :] if self.pools_prefix is False else x)
        else:
            x = global_pool_nlc(x, self.pool_type, self.num_prefix_tokens, bool(self.pools_prefix))
        return F.normalize(self.projection(self.fc_norm(x)), dim=-1)
