"""Attention of a few query tokens over all tokens of a clip (docs/method.md section 3), without projecting the tokens.

With y_s = LN(x_s), the score of one attention head is q·(W_k y_s + b_k) = (W_kᵀ q)·y_s + const. Softmax drops the
constant. The output of the head is Σ a_s (W_v y_s + b_v) = W_v (Σ a_s y_s) + b_v. So the query is projected, and not
the tokens. LN is folded in as well: y_s = γ (x_s − μ_s) r_s + β, with the mean μ_s and the inverse deviation r_s of a
token, gives

    score_s = r_s û·x_s,   û = centered(γ ∘ W_kᵀ q)             because  û·1 = 0  removes the mean
    Σ a_s y_s = γ ∘ centered(m) + β,   m = Σ a_s r_s x_s         because  Σ a_s = 1

where centered(v) = v − mean(v). Only ``pool_tokens`` reads the tokens. docs/performance.md counts the operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from evl.config import ModelConfig
from evl.errors import ConfigError
from evl.runtime.cpu import Linear, bmm, linear
from evl.runtime.precision import without_autocast
from evl.types import BackboneSpec


def attention_sizes(config: ModelConfig, spec: BackboneSpec) -> tuple[int, int]:
    """Returns (width, number of heads) of a decoder's attention, with defaults filled in.

    By default attention heads are 64 wide. If 64 does not divide the width, there are as many as in the backbone.
    Raises ConfigError if the number of heads does not divide the width.
    """
    qkv_width = config.qkv_width or spec.width
    num_heads = config.num_heads or (qkv_width // 64 if qkv_width % 64 == 0 else spec.num_heads)
    if qkv_width % num_heads:
        raise ConfigError(f"model.num_heads {num_heads} does not divide the attention's width {qkv_width}")
    return qkv_width, num_heads


class CrossAttention(nn.Module):
    """Multi-head attention: ``query`` (B,Q,D) over normalized ``tokens`` (B,S,D) -> (B,Q,D).

    The projections have a bias. They map D to ``qkv_width`` and back; heads are ``qkv_width / num_heads`` wide. The
    norm of the tokens is an argument of ``forward``, because it is folded in. Without ``output`` there is no projection
    back to D, and the result is (B,Q,qkv_width): the heads, concatenated.
    """

    def __init__(self, width: int, qkv_width: int, num_heads: int, *, output: bool = True):
        super().__init__()
        if qkv_width % num_heads:
            raise ValueError(f"qkv_width {qkv_width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.q_proj = Linear(width, qkv_width)
        self.k_proj = Linear(width, qkv_width)
        self.v_proj = Linear(width, qkv_width)
        self.out_proj = Linear(qkv_width, width) if output else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for proj in self.children():
            if isinstance(proj, nn.Linear):
                nn.init.xavier_uniform_(proj.weight)
                nn.init.zeros_(proj.bias)

    @property
    def projects_tokens_from(self) -> float:
        """The number of query tokens Q from which projecting keys and values takes fewer multiplications.

        Without projection a token costs 2·Q·N·D multiplications: N heads read all of D, for the score and for the sum.
        Projected to width W it costs 2·D·W + 2·Q·W. Both are equal at Q = D·W / (N·D − W), about the width of a head.
        """
        width, qkv_width = self.k_proj.in_features, self.k_proj.out_features
        saved = self.num_heads * width - qkv_width
        return math.floor(width * qkv_width / saved) + 1 if saved > 0 else math.inf

    def forward(self, query: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Returns the attention output. ``tokens`` are not normalized yet; ``norm`` is their layer norm."""
        q = self._heads(self.q_proj(query))  # (B,Q,N,K)
        if query.shape[1] >= self.projects_tokens_from:
            return self.out_proj(self._project_tokens(q, tokens, norm).flatten(-2))
        reading = self._reading(q, norm)  # (B,Q,N,D)
        pooled = pool_tokens(tokens, reading.flatten(1, 2), norm.eps)  # (B,Q·N,D)
        return self.gathered(pooled.view(reading.shape), norm, q.dtype)

    def reading(self, query: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Returns û of the module's docstring for query tokens (B,Q,D), with the 1/√K scale: (B,Q,N,D)."""
        return self._reading(self._heads(self.q_proj(query)), norm)

    def gathered(self, pooled: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
        """Returns the attention output for m of the module's docstring, ``pooled`` (B,Q,N,D)."""
        v_weight = self.v_proj.weight.unflatten(0, (self.num_heads, -1))
        pooled = _centered(pooled) * norm.weight + norm.bias
        gathered = torch.einsum("bqnd,nkd->bqnk", pooled.to(dtype), v_weight) + self._heads(self.v_proj.bias)
        # softmax drops the constant of the key's bias, so its gradient is zero; DDP needs one, and this term gives it
        return self.out_proj(gathered.flatten(-2)) + 0 * self.k_proj.bias.sum()

    @torch.no_grad()
    def weights(self, query: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Returns the weights of the tokens in ``forward``: (B,Q,N,S), with sum 1 over S, in float32 at least."""
        reading = self.reading(query, norm)
        _, attention = _attend(tokens, reading.flatten(1, 2), *token_statistics(tokens, norm.eps))
        return attention.unflatten(1, reading.shape[1:3])

    def _reading(self, q: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Returns û of the module's docstring for q (B,Q,N,K), with the 1/√K scale: (B,Q,N,D)."""
        k_weight = self.k_proj.weight.unflatten(0, (self.num_heads, -1))  # (N,K,D)
        reading = torch.einsum("bqnk,nkd->bqnd", q, k_weight) / q.shape[-1] ** 0.5
        return _centered(reading * norm.weight)

    def _project_tokens(self, q: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The usual attention, for many queries: q (B,Q,N,K) over tokens (B,S,D), in their dtype -> (B,Q,N,K)."""

        def like_tokens(module: nn.Module) -> tuple[Tensor, Tensor]:
            return module.weight.to(tokens.dtype), module.bias.to(tokens.dtype)

        y = F.layer_norm(tokens, norm.normalized_shape, *like_tokens(norm), norm.eps)
        k, v = (self._heads(linear(y, *like_tokens(proj))) for proj in (self.k_proj, self.v_proj))
        parts = (x.to(tokens.dtype).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).to(q.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


def _centered(x: Tensor) -> Tensor:
    x = x.to(_wide(x.dtype))
    return x - x.mean(-1, keepdim=True)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of small tensors such as scores and statistics: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def pool_tokens(tokens: Tensor, query: Tensor, eps: float) -> Tensor:
    """Returns m_r = Σ_s softmax_s(r_s query_r·x_s) r_s x_s, with the inverse deviation r_s = (var(x_s) + eps)^−½.

    tokens (B,S,D), query (B,R,D) -> (B,R,D), in float32 at least. Tokens keep their dtype. They are read twice forward
    and three times backward, and only their gradient takes as much memory as they do.
    """
    if torch.compiler.is_exporting():  # the hand-written gradient is not part of an exported program
        return _pooled(tokens, query, eps)[0]
    return _PoolTokens.apply(tokens, query, eps)


class _PoolTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, query: Tensor, eps: float) -> Tensor:
        pooled, *saved = _pooled(tokens, query, eps)
        ctx.save_for_backward(tokens, query, *saved)
        return pooled

    @staticmethod
    @once_differentiable  # the saved statistics and scores have no graph
    def backward(ctx, grad: Tensor):
        tokens, query, mean, inverse, scores, attention = ctx.saved_tensors
        with without_autocast(tokens.device):
            dtype, r = tokens.dtype, inverse[:, None]
            read = vector_products(grad, tokens, mean)  # grad·x_s
            grad = grad.to(dtype)
            grad_attention = read * r
            grad_scores = attention * (grad_attention - (attention * grad_attention).sum(-1, keepdim=True))
            grad_query = bmm((grad_scores * r).to(dtype), tokens).to(query.dtype)
            if not ctx.needs_input_grad[0]:
                return None, grad_query, None
            # ∂/∂x_s: directly through scores and sum, and through r_s, whose derivative is −r_s³ (x_s − μ_s) / D
            grad_inverse = (grad_scores * (scores / r) + attention * read).sum(1)
            through = grad_inverse * inverse**3 / tokens.shape[-1]
            weights = torch.cat([grad_scores * r, attention * r], 1)  # (B,2R,S)
            vectors = torch.cat([query.to(dtype), grad], 1)
            grad_tokens = (tokens - mean[..., None].to(dtype)).mul_(-through[..., None].to(dtype))
            return grad_tokens.baddbmm_(weights.to(dtype).mT, vectors), grad_query, None


def _pooled(tokens: Tensor, query: Tensor, eps: float) -> tuple[Tensor, ...]:
    """Returns what ``pool_tokens`` returns, then mean and inverse deviation (B,S), scores and attention (B,R,S)."""
    wide = _wide(tokens.dtype)
    mean, inverse = token_statistics(tokens, eps)
    scores, attention = _attend(tokens, query, mean, inverse)
    pooled = bmm((attention * inverse[:, None]).to(tokens.dtype), tokens)
    # torch 2.11 loses all gradients if it compiles a last ``to`` that does nothing
    return pooled if pooled.dtype == wide else pooled.to(wide), mean, inverse, scores, attention


def _attend(tokens: Tensor, query: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the scores r_s query_r·x_s and their softmax over s: (B,R,S) each, in float32 at least."""
    scores = vector_products(query, tokens, mean) * inverse[:, None]
    return scores, scores.softmax(-1)


def vector_products(vectors: Tensor, tokens: Tensor, mean: Tensor) -> Tensor:
    """Returns vector·x_s for vectors (B,R,D) and tokens (B,S,D): (B,R,S), in float32 at least.

    The vectors lose precision when they are cast to the dtype of the tokens. The loss along the direction 1 is added
    back: if the mean of tokens is large, they are far longer in this direction than in others.
    """
    narrow = vectors.to(tokens.dtype)
    products = bmm(narrow, tokens.mT).to(_wide(tokens.dtype))
    if torch.finfo(narrow.dtype).eps <= torch.finfo(vectors.dtype).eps:
        return products
    lost = vectors.sum(-1) - narrow.sum(-1, dtype=vectors.dtype)
    return products.addcmul_(lost[..., None], mean[:, None])


def token_statistics(tokens: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns mean and inverse deviation (var + eps)^−½ over D: (B,S,D) -> (B,S) each, in float32 at least."""
    mean, variance = token_moments(tokens)
    return mean, torch.rsqrt(variance + eps)


def token_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance over D: (B,S,D) -> (B,S) each, in float32 at least."""
    wide = _wide(tokens.dtype)
    if torch.compiler.is_compiling():  # one fused pass
        variance, mean = torch.var_mean(tokens.to(wide), -1, correction=0)
    elif tokens.dtype != wide:  # two moments, summed in float32, are exact enough for tokens in half precision
        mean = tokens.mean(-1, dtype=wide)
        square = torch.linalg.vector_norm(tokens, dim=-1, dtype=wide).square_() / tokens.shape[-1]
        variance = (square - mean * mean).clamp_min_(0)
    elif tokens.device.type != "cpu":
        variance, mean = torch.var_mean(tokens, -1, correction=0)
    else:  # on the CPU torch.var_mean is ten times slower than two passes over parts that fit in the cache
        mean, deviation = (tokens.new_empty(tokens.shape[:2]) for _ in range(2))
        rows = max(1, CPU_CACHE_BYTES // (tokens.shape[-1] * tokens.element_size()))
        parts = (x.flatten(0, 1).split(rows) for x in (tokens, mean, deviation))
        for part, its_mean, its_deviation in zip(*parts, strict=True):
            torch.mean(part, -1, out=its_mean)
            torch.linalg.vector_norm(part - its_mean[:, None], dim=-1, out=its_deviation)
        variance = deviation.square_() / tokens.shape[-1]
    return mean, variance


CPU_CACHE_BYTES = 1 << 20  # a part of this size stays in the cache of a core, so it is read from memory only once
