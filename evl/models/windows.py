"""Windows of a long video → vectors: what overlapping windows have in common is computed once.

The features of a window are those of its frames, and the EVL decoder (docs/method.md section 3) makes of them

    A[t] = G(f_{t−1}, f_t, f_{t+1}) + P[t],     G = f_t + b + w0·f_{t−1} + w1·f_t + w2·f_{t+1} + the two moved maps

where the terms of a missing neighbor are zero. G depends on three frames and not on the window, so windows share it
(``evl.models.window_sums``). Each window then reads its T maps G by its own query, without a copy of them: P[t] and the
norm of the tokens are folded in,

    score_s = r_s (û·G_s + û·P[t]),     r_s = (var(G_s) + 2 cov(G_s, P[t]) + var(P[t]) + eps)^−½
    m = Σ a_s r_s G_s + Σ a_s r_s P[t]

with û and m of ``evl.models.attention``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evl.models.attention import vector_products
from evl.models.decoder import DecoderLayer, EVLDecoder
from evl.models.window_sums import SumsOfWindows, WindowSums
from evl.runtime.cpu import bmm
from evl.runtime.precision import without_autocast
from evl.types import LayerFeatures


@dataclass(frozen=True)
class WindowFeatures:
    """The features of one tapped block for windows that share frames.

    tokens (F,L,D), query and key (F,L,N,K): those of F frames; crops of a frame are frames of their own. ``numbers``
    (F): what identifies each frame in all batches. ``places`` (B,T): where among the F the frames of each window are.
    """

    tokens: Tensor
    query: Tensor
    key: Tensor
    numbers: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def windows(self, chosen: slice) -> WindowFeatures:
        """The same for some of the windows."""
        return WindowFeatures(self.tokens, self.query, self.key, self.numbers, self.places[chosen])

    def clips(self, attention: bool = True) -> LayerFeatures:
        """A copy for each window: tokens (B,T,L,D), query and key (B,T,L,N,K), these without heads if not wanted."""
        places = torch.from_numpy(self.places).to(self.tokens.device)
        query, key = (part if attention else part[..., :0, :] for part in (self.query, self.key))
        return LayerFeatures(*(part[places] for part in (self.tokens, query, key)))


class WindowDecoder:
    """An EVL decoder for windows that share frames: WindowFeatures of M blocks -> (B,D), without gradients.

    The result is that of the decoder for ``clips()`` of each block. Between calls it keeps what the last windows of a
    call have in common with the first ones of the next.
    """

    def __init__(self, decoder: EVLDecoder):
        self.decoder = decoder
        self.sums = [SumsOfWindows(layer.temporal) for layer in decoder.layers]

    @staticmethod
    def can_read(decoder: torch.nn.Module) -> bool:
        """Whether windows can share this decoder's work: an EVL decoder whose queries read tokens unprojected."""
        if type(decoder) is not EVLDecoder:
            return False
        return all(len(decoder.query_token) < layer.attention.projects_tokens_from for layer in decoder.layers)

    def __call__(self, features: Sequence[WindowFeatures]) -> Tensor:
        x = self.decoder.query_token.expand(len(features[0]), -1, -1)  # (B,Q,D)
        with without_autocast(x.device), torch.no_grad():
            for layer, sums, one in zip(self.decoder.layers, self.sums, features, strict=True):
                x = _through(layer, x, sums.of(one.tokens, one.query, one.key, one.numbers, one.places))
        return x.mean(1)


def _through(layer: DecoderLayer, x: Tensor, sums: WindowSums) -> Tensor:
    """``DecoderLayer.forward`` for windows: x (B,Q,D) -> x (B,Q,D)."""
    query = layer.norm_query(x)
    reading = layer.attention.reading(query, layer.norm_tokens)  # (B,Q,N,D)
    pooled = pool_windows(sums, reading.flatten(1, 2), layer.temporal.position, layer.norm_tokens.eps)
    x = x + layer.attention.gathered(pooled.view(reading.shape), layer.norm_tokens, query.dtype)
    return x + layer.mlp(layer.norm_mlp(x))


def pool_windows(sums: WindowSums, query: Tensor, position: Tensor | None, eps: float) -> Tensor:
    """``pool_tokens`` (``evl.models.attention``) of the tokens A of windows: query (B,R,D) -> (B,R,D).

    ``position`` (T,D) is P.
    """
    scores, inverses = [], []
    for t in range(sums.places.shape[1]):
        tokens = sums.of_frames(sums.tokens, t)  # (B,L,D)
        variance = sums.of_frames(sums.variance, t)
        if position is not None:
            variance = variance + sums.of_frames(sums.more_variance, t)[:, t]
        inverse = torch.rsqrt(variance + eps)
        products = vector_products(query, tokens, sums.of_frames(sums.mean, t))
        if position is not None:
            products += (query @ position[t].to(query.dtype))[..., None]
        scores.append(products * inverse[:, None])
        inverses.append(inverse)
    weights = torch.stack(scores, 2).flatten(2).softmax(-1).unflatten(-1, (len(scores), -1))  # (B,R,T,L)
    pooled = torch.zeros_like(query)
    for t, inverse in enumerate(inverses):
        share = weights[:, :, t] * inverse[:, None]  # (B,R,L)
        tokens = sums.of_frames(sums.tokens, t)
        pooled += bmm(share.to(tokens.dtype), tokens)
        if position is not None:
            pooled += share.sum(-1, keepdim=True) * position[t].to(query.dtype)
    return pooled
