"""The side network frame by frame: what it keeps between frames, in constant memory (docs/side.md, "Streams").

After frame t the result equals that of the whole network on the frames 0 … t. The mean read-out is a running sum. The
query read-out is a running softmax: with the highest score m so far, it keeps Σ e^(score − m) and Σ e^(score − m) x.
For endless streams both can forget: each new frame multiplies the weight of all frames before it by 1 − 1/memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from evl.models.attention import token_statistics
from evl.models.decoder import DecoderLayer


class Past(NamedTuple):
    """What a layer of a causal side network keeps of the two frames before: ``moved`` (B,2,P,d) is the input of its
    convolution over time, ``class_rows`` (B,2,d) its class rows. Zeros stand for frames before the first."""

    moved: Tensor
    class_rows: Tensor


class ReadSoFar(NamedTuple):
    """What a read-out keeps: ``total`` (B,R,d), a sum over tokens; ``weight`` (B,R), the sum of their weights; and
    ``highest`` (B,R), the highest score (0 for the mean). R is 1 for the mean, and the number of heads for a query."""

    total: Tensor
    weight: Tensor
    highest: Tensor


class SideState(NamedTuple):
    """The state of B streams between two frames. ``keep``: the factor by which old frames count less with each new one,
    1 to never forget."""

    past: tuple[Past, ...]
    read: ReadSoFar
    keep: float


def keep_of(memory: float | None) -> float:
    """Returns the factor for a memory of that many frames, 1 for None. Raises ValueError for less than one frame."""
    if memory is None:
        return 1.0
    if not memory >= 1:
        raise ValueError(f"memory {memory}: expected a number of frames from 1, or None to never forget")
    return 1 - 1 / memory


def mean_more(read: ReadSoFar, means: Tensor, keep: float) -> ReadSoFar:
    """Adds the means over patches (B,T,d) of new frames to a running mean."""
    num_frames = means.shape[1]
    shares = keep ** torch.arange(num_frames - 1, -1, -1, dtype=means.dtype, device=means.device)
    total = read.total * keep**num_frames + torch.einsum("t,btd->bd", shares, means)[:, None]
    return ReadSoFar(total, read.weight * keep**num_frames + shares.sum(), read.highest)


def attend_more(read: ReadSoFar, tokens: Tensor, query: Tensor, eps: float, keep: float) -> ReadSoFar:
    """Adds the tokens (B,T,P,d) of new frames to a running ``evl.models.attention.pool_tokens`` of query (B,R,d)."""
    for frame in tokens.unbind(1):
        inverse = token_statistics(frame, eps)[1]  # (B,P)
        wide = frame.to(query.dtype)
        scores = (query @ wide.mT) * inverse[:, None]
        highest = torch.maximum(read.highest, scores.amax(-1))
        shares = torch.exp(scores - highest[..., None])
        before = torch.exp(read.highest - highest) * keep
        total = before[..., None] * read.total + (shares * inverse[:, None]) @ wide
        read = ReadSoFar(total, before * read.weight + shares.sum(-1), highest)
    return read


def query_result(reader: DecoderLayer, query: Tensor, read: ReadSoFar) -> Tensor:
    """The result (B,1,d) of ``reader`` for query tokens (B,1,d) after the tokens that were read so far."""
    pooled = (read.total / read.weight[..., None])[:, None]  # (B,1,R,d)
    x = query + reader.attention.gathered(pooled, reader.norm_tokens, query.dtype)
    return x + reader.mlp(reader.norm_mlp(x))
