"""The plain twin of the EVL decoder (docs/method.md section 3).

It follows the equations term by term for every token, with autograd, and uses the parameters of the fast module. Tests
compare its numbers and gradients with those of ``evl.models``, and ``evl bench`` its time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evl.models import EVLDecoder
from evl.types import LayerFeatures


def plain_decoder(decoder: EVLDecoder, features: Sequence[LayerFeatures]) -> Tensor:
    """M × LayerFeatures -> (B,D), with the parameters of ``decoder``."""
    x = decoder.query_token.expand(len(features[0].tokens), -1, -1)  # (B,Q,D)
    for layer, one in zip(decoder.layers, features, strict=True):
        y = layer.norm_tokens(plain_temporal(layer.temporal, one).flatten(1, 2))  # (B,T·L,D)
        x = x + plain_attention(layer.attention, layer.norm_query(x), y)
        x = x + plain_mlp(layer.mlp, layer.norm_mlp(x))
    return x.mean(1)


def plain_attention(attention: nn.Module, query: Tensor, tokens: Tensor) -> Tensor:
    """query (B,Q,D) over normalized tokens (B,S,D) -> (B,Q,D)."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attention.num_heads, -1))

    q = heads(plain_linear(attention.q_proj, query))  # (B,Q,N,K)
    k = heads(plain_linear(attention.k_proj, tokens))  # (B,S,N,K)
    v = heads(plain_linear(attention.v_proj, tokens))
    gathered = plain_attend(q, k, v).flatten(-2)
    return plain_linear(attention.out_proj, gathered) if isinstance(attention.out_proj, nn.Linear) else gathered


def plain_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B,Q,N,K), k and v (B,S,N,K) -> (B,Q,N,K)."""
    scores = torch.einsum("bqnk,bsnk->bnqs", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bnqs,bsnk->bqnk", scores.softmax(dim=-1), v)


def plain_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    hidden = plain_linear(mlp.fc1, x)
    return plain_linear(mlp.fc2, mlp.dropout(hidden * torch.sigmoid(1.702 * hidden)))


def plain_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, linear.weight, linear.bias)


def plain_temporal(temporal: nn.Module, features: LayerFeatures) -> Tensor:
    """LayerFeatures (B,T,L,D) -> tokens (B,T,L,D) with the parts of the local temporal module added."""
    a = features.tokens
    if temporal.conv is not None:
        a = a + plain_conv(temporal.conv.conv, features.tokens)
    if temporal.position is not None:
        a = a + temporal.position[:, None]
    if temporal.cross_frame is not None:
        a = a + plain_cross_frame(temporal.cross_frame, features.query, features.key)
    return a


def plain_conv(conv: nn.Conv1d, tokens: Tensor) -> Tensor:
    b, t, num_tokens, d = tokens.shape
    over_time = tokens.permute(0, 2, 3, 1).reshape(b * num_tokens, d, t)
    return conv(over_time).reshape(b, num_tokens, d, t).permute(0, 3, 1, 2)


def plain_cross_frame(module: nn.Module, query: Tensor, key: Tensor) -> Tensor:
    """query, key (B,T,L,N,K), prefix tokens first -> (B,T,L,D), zero at prefix tokens."""
    h, w = module.grid
    rows, columns = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    relative_index = (rows[:, None] - rows + h - 1) * (2 * w - 1) + (columns[:, None] - columns + w - 1)
    relative_index = relative_index.to(query.device)  # (h·w, h·w): r(p,p')
    num_prefix = query.shape[2] - h * w
    # out(t) has a term of frame t−1 for t ≥ 1 and of frame t+1 for t ≤ T−2; a missing neighbor gives 0
    maps = {"before": (query[:, 1:], key[:, :-1]), "after": (query[:, :-1], key[:, 1:])}
    padding = {"before": (1, 0), "after": (0, 1)}  # frames of zeros to add at the start and at the end
    out = 0
    for name, (q, k) in maps.items():
        with torch.no_grad():  # frozen: a map has no parameters
            attention = mean_attention(q[:, :, num_prefix:], k[:, :, num_prefix:])  # (B,T−1,h·w,h·w)
        # the gradient of F.embedding is the same in every run; that of indexing is not
        table = F.embedding(relative_index, getattr(module, name))  # (h·w, h·w, D)
        moved = torch.einsum("btpr,prd->btpd", attention.to(table.dtype), table)
        out = out + F.pad(moved, (0, 0, num_prefix, 0, *padding[name]))
    return out


def mean_attention(query: Tensor, key: Tensor) -> Tensor:
    """query, key (B,T,P,N,K) -> (B,T,P,P): softmax over the keys, averaged over attention heads."""
    scores = torch.einsum("btpnk,btrnk->btnpr", query, key) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1).mean(dim=2)
