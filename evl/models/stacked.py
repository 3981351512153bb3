"""Runs classifiers of equal shape in one call. It gives the same numbers by fewer and larger products.

The parameters of G models are stacked, (G, …), and each model's own parameters become views of the stack. So an
optimizer that changes them changes the stack. Each model is still an ordinary ``Classifier``, which can be judged and
saved at any time.

One call replaces G calls. If no model changes the tokens, the queries of all models read them in one product. Neighbor
maps multiply the tables of all models side by side. If models change the tokens (by any part of the local temporal
module), each needs a token map of its own, as it does alone. ``evl.training.learners`` decides when models are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from evl.models.attention import CrossAttention, pool_tokens
from evl.models.classifier import Classifier
from evl.models.decoder import DecoderLayer, EVLDecoder
from evl.models.probes import AttentiveProbe, MeanPool
from evl.models.temporal import add_temporal
from evl.runtime.precision import without_autocast
from evl.types import LayerFeatures, MappedFeatures

# dropout(g, [(shape, p), …]) -> the factors for model g's activations, drawn in the order in which it draws them alone
Dropout = Callable[[int, Sequence[tuple[tuple[int, ...], float]]], list[Tensor]]


def shape_of(model: Classifier) -> tuple | None:
    """The shape of a model. Models of equal shape can be stacked. None: this model cannot be stacked.

    It is None for attentive probes with self-attention blocks and for decoders with so many queries that they project
    the tokens: stacking them needs G times the memory and saves no time. It is also None for models that add zero-shot
    scores.
    """
    decoder = model.decoder
    if model.zero_shot is not None:
        return None
    if isinstance(decoder, EVLDecoder):
        attentions = [layer.attention for layer in decoder.layers]
        if len(decoder.query_token) >= min(attention.projects_tokens_from for attention in attentions):
            return None
        grids = [layer.temporal.cross_frame and layer.temporal.cross_frame.grid for layer in decoder.layers]
        other = (tuple(attention.num_heads for attention in attentions), tuple(grids))
    elif isinstance(decoder, AttentiveProbe):
        if len(decoder.blocks) or decoder.attention.projects_tokens_from <= 1:
            return None
        positions = decoder.positions
        other = (decoder.attention.num_heads, positions and (positions.grid, tuple(positions.time.shape)))
    elif isinstance(decoder, MeanPool):
        other = (decoder.num_prefix_tokens,)
    else:
        return None
    parameters = tuple((name, tuple(p.shape), p.dtype) for name, p in _trainable(model))
    return type(decoder), other, parameters


def changes_tokens(model: Classifier) -> bool:
    """Whether this model's decoder makes its own token maps, as large as those of the backbone."""
    layers = model.decoder.layers if isinstance(model.decoder, EVLDecoder) else ()
    return any(part is not None for layer in layers for part in _temporal_parts(layer))


def _temporal_parts(layer: DecoderLayer) -> tuple:
    return layer.temporal.conv, layer.temporal.position, layer.temporal.cross_frame


def _trainable(model: Classifier) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for part in ("decoder", "head") for name, p in getattr(model, part).named_parameters(part)]


class StackedClassifiers:
    """G models of equal ``shape_of``. Their parameters are views of ``stacks`` until ``release``."""

    def __init__(self, models: Sequence[Classifier]):
        if len({shape_of(model) for model in models}) != 1 or shape_of(models[0]) is None:
            raise ValueError(f"the {len(models)} models cannot be stacked: shape_of must be equal and not None")
        self.models = list(models)
        self.stacks: dict[str, Tensor] = {}  # name -> (G, …)
        for group in zip(*(_trainable(model) for model in models), strict=True):
            stack = torch.stack([p.detach() for _, p in group]).requires_grad_()
            for g, (_, p) in enumerate(group):
                p.data = stack.detach()[g]
            self.stacks[group[0][0]] = stack

    def release(self) -> None:
        """Copies the parameters, so that each model has its own memory again."""
        for model in self.models:
            for _, p in _trainable(model):
                p.data = p.data.clone()

    def share_gradients(self) -> None:
        """Makes every model's gradients views of the stack's, after ``backward``."""
        for name, stack in self.stacks.items():
            for g, model in enumerate(self.models):
                model.get_parameter(name).grad = None if stack.grad is None else stack.grad[g]

    def forget_gradients(self) -> None:
        for stack in self.stacks.values():
            stack.grad = None

    def classify(
        self,
        features: Sequence[LayerFeatures | MappedFeatures],
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Features of the tapped blocks -> logits of all models (G,B,Y). ``dropout`` None: no dropout."""
        tokens = features[-1].tokens
        with without_autocast(tokens.device):
            masks = self._masks(len(tokens), dropout)
            decoder = self.models[0].decoder
            if isinstance(decoder, EVLDecoder):
                x = self._evl(decoder, features, masks)
            elif isinstance(decoder, AttentiveProbe):
                x = self._probe(decoder, tokens, masks)
            else:
                x = decoder(features).expand(len(self.models), -1, -1)  # it has no parameters
            x = self._norm("head.norm", x.to(self.stacks["head.norm.weight"].dtype))
            return self._linear("head.linear", x * masks[-1])

    def _masks(self, num_clips: int, dropout: Dropout | None) -> list[Tensor | float]:
        """The factors of each dropout, in the order of the forward pass: (G,B,Q,·) each, or 1."""
        first = self.models[0].decoder
        if isinstance(first, EVLDecoder):
            inner = [(f"decoder.layers.{i}.mlp.fc1.bias", len(first.query_token)) for i in range(len(first.layers))]
        else:
            inner = [("decoder.mlp.fc1.bias", 1)] if isinstance(first, AttentiveProbe) else []
        shapes = [(num_clips, queries, self.stacks[name].shape[1]) for name, queries in inner]
        shapes.append((num_clips, self.stacks["head.norm.weight"].shape[1]))
        if dropout is None:
            return [1.0] * len(shapes)
        rates = [
            [m.p for part in (model.decoder, model.head) for m in part.modules() if isinstance(m, nn.Dropout)]
            for model in self.models
        ]
        if not any(any(own) for own in rates):
            return [1.0] * len(shapes)
        drawn = [dropout(g, list(zip(shapes, own, strict=True))) for g, own in enumerate(rates)]
        return [torch.stack(masks) for masks in zip(*drawn, strict=True)]

    def _evl(self, decoder: EVLDecoder, features: Sequence[LayerFeatures | MappedFeatures], masks) -> Tensor:
        """As ``EVLDecoder.forward`` -> (G,B,D)."""
        if len(features) != len(decoder.layers):
            raise ValueError(f"{len(features)} tapped blocks were given, but there are {len(decoder.layers)} layers")
        x = self.stacks["decoder.query_token"][:, None].expand(-1, len(features[0].tokens), -1, -1)  # (G,B,Q,D)
        for i, (layer, block) in enumerate(zip(decoder.layers, features, strict=True)):
            name = f"decoder.layers.{i}"
            tokens = self._temporal(name, layer, block)
            query = self._norm(f"{name}.norm_query", x)
            gathered = self._attention(f"{name}.attention", layer.attention, query, tokens, f"{name}.norm_tokens")
            x = x + self._linear(f"{name}.attention.out_proj", gathered)
            hidden = layer.mlp.act(self._linear(f"{name}.mlp.fc1", self._norm(f"{name}.norm_mlp", x)))
            x = x + self._linear(f"{name}.mlp.fc2", hidden * masks[i])
        return x.mean(2)

    def _probe(self, decoder: AttentiveProbe, tokens: Tensor, masks) -> Tensor:
        """As ``AttentiveProbe.forward`` without blocks -> (G,B,D)."""
        if decoder.positions is not None:
            tokens = decoder.positions(F.layer_norm(tokens, tokens.shape[-1:]))
        query = self.stacks["decoder.query_token"][:, None].expand(-1, len(tokens), -1, -1)
        y = tokens.flatten(1, 2)
        x = query + self._attention("decoder.attention", decoder.attention, query, y, "decoder.norm_tokens")
        hidden = decoder.mlp.act(self._linear("decoder.mlp.fc1", self._norm("decoder.norm_mlp", x)))
        return (x + self._linear("decoder.mlp.fc2", hidden * masks[0])).squeeze(2)

    def _temporal(self, name: str, layer: DecoderLayer, features: LayerFeatures | MappedFeatures) -> Tensor:
        """The tokens after the ``LocalTemporalModule`` of each model: (G,B,S,D), or (B,S,D) if they do not change.

        The models lie side by side along D while it computes.
        """
        tokens, num_models = features.tokens, len(self.models)
        if not any(part is not None for part in _temporal_parts(layer)):
            return tokens.flatten(1, 2)

        def side_by_side(key: str) -> Tensor | None:
            """(G,…,D) -> (…,G·D)"""
            stack = self.stacks.get(f"{name}.temporal.{key}")
            return None if stack is None else stack.movedim(0, -2).flatten(-2)

        weight = self.stacks.get(f"{name}.temporal.conv.conv.weight")
        cross_frame = layer.temporal.cross_frame
        wide = tokens.unsqueeze(3).expand(-1, -1, -1, num_models, -1).flatten(3)
        a = add_temporal(
            features._replace(tokens=wide),
            None if weight is None else weight.flatten(0, 1),
            side_by_side("conv.conv.bias"),
            side_by_side("position"),
            side_by_side("cross_frame.before"),
            side_by_side("cross_frame.after"),
            None if cross_frame is None else cross_frame.grid,
        )
        return a.unflatten(-1, (num_models, -1)).movedim(3, 0).flatten(2, 3)

    def _attention(self, name: str, attention: CrossAttention, query: Tensor, tokens: Tensor, norm: str) -> Tensor:
        """``CrossAttention`` up to its ``out_proj``: query (G,B,Q,D), tokens (B,S,D) or (G,B,S,D) -> (G,B,Q,N·K)."""
        stacks, num_heads = self.stacks, attention.num_heads
        scale, shift = (self._broadcast(f"{norm}.{key}") for key in ("weight", "bias"))  # (G,1,1,1,D)
        q = self._linear(f"{name}.q_proj", query)  # (G,B,Q,N·K)
        k_weight = stacks[f"{name}.k_proj.weight"].unflatten(1, (num_heads, -1)).flatten(0, 1)  # (G·N,K,D)
        q = self._per_head(q.unflatten(-1, (num_heads, -1))) / k_weight.shape[1] ** 0.5  # (G·N,B·Q,K)
        reading = torch.bmm(q, k_weight).unflatten(0, (-1, num_heads)).unflatten(2, query.shape[1:3])  # (G,N,B,Q,D)
        reading = reading.permute(0, 2, 3, 1, 4) * scale  # (G,B,Q,N,D)
        reading = reading - reading.mean(-1, keepdim=True)
        if tokens.ndim == 3:  # all models share the tokens: their queries read them in one product
            pooled = pool_tokens(tokens, reading.transpose(0, 1).flatten(1, 3), 1e-5)
            pooled = pooled.view(reading.transpose(0, 1).shape).transpose(0, 1)
        else:
            pooled = pool_tokens(tokens.flatten(0, 1), reading.flatten(0, 1).flatten(1, 2), 1e-5).view(reading.shape)
        pooled = ((pooled - pooled.mean(-1, keepdim=True)) * scale + shift).to(q.dtype)
        v_weight = stacks[f"{name}.v_proj.weight"].unflatten(1, (num_heads, -1)).flatten(0, 1)
        v_bias = stacks[f"{name}.v_proj.bias"].unflatten(1, (num_heads, -1)).flatten(0, 1)
        gathered = _Linears.apply(self._per_head(pooled), v_weight, v_bias)  # (G·N,B·Q,K)
        gathered = gathered.unflatten(0, (-1, num_heads)).unflatten(2, query.shape[1:3]).permute(0, 2, 3, 1, 4)
        no_bias = 0 * stacks[f"{name}.k_proj.bias"].sum(-1)  # as in CrossAttention
        return gathered.flatten(-2) + no_bias[:, None, None, None]

    @staticmethod
    def _per_head(x: Tensor) -> Tensor:
        """(G,B,Q,N,·) -> (G·N,B·Q,·)"""
        return x.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2)

    def _broadcast(self, name: str) -> Tensor:
        """(G,D) -> (G,1,1,1,D)"""
        return self.stacks[name][:, None, None, None]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """LayerNorm of (G,B,…,D), with the weight and bias of each model."""
        weight, bias = (self.stacks[f"{name}.{key}"] for key in ("weight", "bias"))
        shape = (len(weight), *(1 for _ in x.shape[1:-1]), -1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-5) * weight.view(shape) + bias.view(shape)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        """(G,B,…,K) -> (G,B,…,N), with the weight and bias of each model."""
        weight, bias = self.stacks[f"{name}.weight"], self.stacks[f"{name}.bias"]
        return _Linears.apply(x.flatten(1, -2), weight, bias).view(*x.shape[:-1], -1)


class _Linears(torch.autograd.Function):
    """x (G,R,K), weight (G,N,K), bias (G,N) -> (G,R,N).

    Its backward pass gives the gradient of the weight in the weight's own layout. Autograd's would be transposed in
    memory, and would be copied.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return grad_x, torch.bmm(grad.mT, x), grad.sum(1)
