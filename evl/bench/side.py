"""The plain twin of the side network (docs/side.md), and its multiply-adds.

The twin follows the equations term by term, with autograd, and uses the parameters of the fast module. Tests compare
numbers and gradients, and ``evl bench`` time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evl.bench.twin import plain_attention, plain_linear, plain_mlp
from evl.models import SideDecoder
from evl.types import BackboneSpec, LayerFeatures


def plain_side(decoder: SideDecoder, features: Sequence[LayerFeatures]) -> Tensor:
    """(1 + M) × LayerFeatures -> (B,d), with the parameters of a SideDecoder in training (docs/side.md)."""
    num_patches, causal = decoder.grid[0] * decoder.grid[1], decoder.causal
    state = plain_linear(decoder.start.proj, decoder.start.norm(features[0].tokens))[:, :, -num_patches:]
    for layer, one in zip(decoder.layers, features[1:], strict=True):
        z = plain_linear(layer.tap.proj, layer.tap.norm(one.tokens))  # (B,T,L,d)
        state = (state + z[:, :, -num_patches:]) / 2
        moved = plain_linear(layer.time.fc1, plain_side_norm(layer.time.norm, state))
        moved = F.pad(moved, (0, 0, 0, 0, 2, 0) if causal else (0, 0, 0, 0, 1, 1))  # zeros before and after the clip
        mixed = F.conv3d(  # (B,d,T,P,1)
            moved.permute(0, 3, 1, 2)[..., None], layer.time.conv.weight[..., None, None], layer.time.conv.bias,
            groups=moved.shape[-1],
        )[..., 0].permute(0, 2, 3, 1)  # fmt: skip
        state = state + plain_linear(layer.time.fc2, mixed)
        keys = state + decoder.position
        if z.shape[2] > num_patches:
            keys = torch.cat([plain_shift(z[:, :, 0], causal)[:, :, None], keys], 2)
        state = state + plain_frame_attention(layer.attention, state + decoder.position, keys)
        hidden = F.gelu(plain_linear(layer.mlp.fc1, plain_side_norm(layer.norm_mlp, state)))
        state = state + plain_linear(layer.mlp.fc2, hidden)
    if decoder.reader is None:
        pooled = state.mean((1, 2))
        pooled = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
        return pooled * decoder.norm.weight + decoder.norm.bias
    reader, x = decoder.reader, decoder.query_token.expand(len(state), -1, -1)
    x = x + plain_attention(reader.attention, reader.norm_query(x), reader.norm_tokens(state.flatten(1, 2)))
    return (x + plain_mlp(reader.mlp, reader.norm_mlp(x)))[:, 0]


def plain_frame_attention(attention: nn.Module, queries: Tensor, keys: Tensor) -> Tensor:
    """queries (B,T,P,d) over keys (B,T,S,d) of the same frame -> (B,T,P,d)."""
    weights, biases = attention.qkv_proj.weight.chunk(3), attention.qkv_proj.bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (attention.num_heads, -1))
        for x, weight, bias in zip((queries, keys, keys), weights, biases, strict=True)
    )
    scores = torch.einsum("btpnk,btsnk->btnps", q, k) / q.shape[-1] ** 0.5
    gathered = torch.einsum("btnps,btsnk->btpnk", scores.softmax(-1), v)
    return plain_linear(attention.out_proj, gathered.flatten(-2))


def plain_shift(rows: Tensor, causal: bool) -> Tensor:
    """Class rows (B,T,d), each with channels of two other frames; zeros where there is no such frame."""
    half, num_frames = rows.shape[-1] // 2, rows.shape[1]
    shifted = []
    for t in range(num_frames):
        sources = (t - 1, t - 2) if causal else (t + 1, t - 1)
        row = [rows[:, s] if 0 <= s < num_frames else torch.zeros_like(rows[:, t]) for s in sources]
        shifted.append(torch.cat([row[0][:, :half], row[1][:, half:]], -1))
    return torch.stack(shifted, 1)


def plain_side_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm of the side network in training, for x (B,T,P,d)."""
    over = {"layer": (3,), "rms": (3,), "clip": (1, 2, 3), "channel": (1, 2), "scale": None}
    over = over[norm.kind] if hasattr(norm, "kind") else (0, 1, 2)
    if over is not None:
        mean = 0 if getattr(norm, "kind", "") == "rms" else x.mean(over, keepdim=True)
        x = (x - mean) / (((x - mean) ** 2).mean(over, keepdim=True) + 1e-5).sqrt()
    x = x * norm.weight
    return x if norm.bias is None else x + norm.bias


def side_macs(decoder: SideDecoder, spec: BackboneSpec, num_frames: int) -> dict[str, dict[str, int]]:
    """Returns the multiply-adds of a side network for one clip: part → {plain, fast, fast backward}, over all layers.

    The convolution over time is not a product for torch's counter on every path, so it is a part of its own. Backward
    no gradient goes to the tapped tokens; products with two changing factors cost twice.
    """
    num_layers, layer, d = len(decoder.layers), decoder.layers[0], decoder.width
    patches = num_frames * decoder.grid[0] * decoder.grid[1]
    tokens = num_frames * spec.num_tokens
    read = patches + (num_frames if spec.num_prefix_tokens else 0)  # patches and one class row
    attend = 2 * patches * (read // num_frames) * d
    forward = {
        "start": patches * spec.width * d,
        "taps": num_layers * tokens * spec.width * d,
        "time: linear layers": num_layers * 2 * patches * d * d,
        "time: convolution": num_layers * 3 * patches * d,
        "space: linear layers": num_layers * (3 * read + patches) * d * d,
        "space: attention": num_layers * attend,
        "MLP": num_layers * 2 * patches * d * layer.mlp.fc1.out_features,
    }
    once = ("start", "taps")
    parts = {part: (n, n, n if part in once else 2 * n) for part, n in forward.items()}
    if decoder.reader is not None:
        hidden, heads = decoder.reader.mlp.fc1.out_features, decoder.reader.attention.num_heads
        small = 2 * d * d + 2 * d * hidden
        parts["read-out"] = (2 * patches * d * (d + 1) + small, 2 * heads * patches * d + small + 2 * d * d,
                             4 * heads * patches * d + 2 * (small + 2 * d * d))  # fmt: skip
    names = ("plain", "fast", "fast backward")
    return {part: dict(zip(names, counts, strict=True)) for part, counts in parts.items()}
