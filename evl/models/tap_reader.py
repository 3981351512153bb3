"""How the side network reads a tapped block: z = W·LN(x) + b for every token, with the norm folded into the product.

With LN(x) = γ (x − μ) r + β, where μ and r are the mean and the inverse deviation of a token,

    z = r · (x·Ŵᵀ) + c,   Ŵ = centered(γ ∘ W),   c = W β + b        because  Ŵ·1 = 0  removes the mean

So no normalized token map exists: the product reads x itself, and the backward pass needs only x, r and the gradient.
The tokens are those of a frozen encoder. They take no gradient, which saves a third product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from evl.models.attention import token_statistics
from evl.models.mlp import linear_like_input
from evl.runtime.cpu import Linear, linear, matmul


class TapReader(nn.Module):
    """Linear(LayerNorm(Y)): tokens (B,T,L,D) of a tapped block -> (B,T,L,d), in their dtype."""

    def __init__(self, width: int, side_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.proj = Linear(width, side_width)

    def forward(self, tokens: Tensor) -> Tensor:
        norm, proj = self.norm, self.proj
        in_graph = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        if in_graph or tokens.requires_grad or tokens.dtype != proj.weight.dtype:
            scale, shift = norm.weight.to(tokens.dtype), norm.bias.to(tokens.dtype)
            return linear_like_input(proj, F.layer_norm(tokens, norm.normalized_shape, scale, shift, norm.eps))
        weight = proj.weight * norm.weight
        weight = weight - weight.mean(-1, keepdim=True)
        return _ProjectNormalized.apply(tokens, weight, proj.weight @ norm.bias + proj.bias, norm.eps)


class _ProjectNormalized(torch.autograd.Function):
    """tokens (B,T,L,D), Ŵ (d,D), c (d) -> z (B,T,L,d). The tokens get no gradient."""

    @staticmethod
    def forward(ctx, tokens: Tensor, weight: Tensor, shift: Tensor, eps: float) -> Tensor:
        inverse = token_statistics(tokens.flatten(1, 2), eps)[1].view(*tokens.shape[:3], 1)
        ctx.save_for_backward(tokens, inverse)
        return torch.addcmul(shift, linear(tokens, weight), inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        tokens, inverse = ctx.saved_tensors
        rows, scaled = grad.flatten(0, -2), (grad * inverse).flatten(0, -2)
        return None, matmul(scaled.T, tokens.flatten(0, -2)), rows.sum(0), None
