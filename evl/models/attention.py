"""Attention of one query token over all tokens of a clip (METHOD.md section 3), in the plain form."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention: ``query`` (B,Q,D) over ``tokens`` (B,S,D) -> (B,Q,D).

    Projections have a bias and map D to ``qkv_width``, and back; heads are ``qkv_width / num_heads`` wide.
    """

    def __init__(self, width: int, qkv_width: int, num_heads: int):
        super().__init__()
        if qkv_width % num_heads:
            raise ValueError(f"qkv_width {qkv_width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, qkv_width)
        self.k_proj = nn.Linear(width, qkv_width)
        self.v_proj = nn.Linear(width, qkv_width)
        self.out_proj = nn.Linear(qkv_width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        q = self._heads(self.q_proj(query))  # (B,Q,N,K)
        k = self._heads(self.k_proj(tokens))  # (B,S,N,K)
        v = self._heads(self.v_proj(tokens))
        scores = torch.einsum("bqnk,bsnk->bnqs", q, k) / q.shape[-1] ** 0.5
        gathered = torch.einsum("bnqs,bsnk->bqnk", scores.softmax(dim=-1), v)
        return self.out_proj(gathered.flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))
