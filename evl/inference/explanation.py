"""Explanations: which patches of which frames a decoder read, or which of them raise its highest logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evl.errors import ConfigError
from evl.models import Classifier
from evl.models.attention import CrossAttention
from evl.models.patch_mean import PatchMean


@dataclass(frozen=True)
class Explanation:
    """The attention of M decoder layers, shallow to deep, for B clips; the shares of one layer and clip sum to 1.

    Of a decoder that takes the mean of all patches (side, linear) it is, with M = 1, the share of each patch in what
    raises the highest logit; all 0 if no patch does.

    ``logits`` (B,Y): the model's own. ``attention`` (M,B,T,h,w): the share of each patch of each frame.
    ``prefix_share`` (M,B): the share of all class and register tokens, which have no place in the picture.

    Attention shows where the decoder read, but not the reason for its answer. A patch token has information about the
    whole frame, and a token with much attention may change the logits only a little. The shares of a mean come from
    the logit itself, but a patch of the side network has read others, too.
    """

    logits: Tensor
    attention: Tensor
    prefix_share: Tensor


def explain(model: Classifier, clips: Tensor) -> Explanation:
    """Computes the attention of each decoder layer's query token for normalized ``clips`` (B,T,C,H,W).

    The attention is the mean over attention heads, and over query tokens if there are several. For an attentive probe
    and for a side network with a query it is that of the readout, so M = 1. A side network's query reads no prefix
    tokens, but a map of its own, into which its layers have mixed other patches of the frame and of its neighbors. A
    decoder without a query that takes the mean of its patches gets a Grad-CAM instead (``Explanation``).
    The model runs in evaluation mode, without dropout. The result is on the clips' device, in float32, or in double for
    double clips. Raises ConfigError for models that have neither cross-attention to all tokens, or to all patches, of
    all frames, nor such a mean.
    """
    readers = [module for module in model.decoder.modules() if isinstance(module, CrossAttention)]
    means = [module for module in model.decoder.modules() if isinstance(module, PatchMean)]
    if not readers and len(means) != 1:
        raise ConfigError(
            f"{type(model.decoder).__name__} has no module evl.models.attention.CrossAttention, so it has no attention "
            "to show, and no mean evl.models.patch_mean.PatchMean; explain works with all trained decoders of evl, and "
            "with decoders that have such a module"
        )
    was_training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not call hooks
            logits, shares = _attention(model, clips, readers) if readers else _parts_of_mean(model, clips, means[0])
    finally:
        model.train(was_training)
    spec, num_maps = model.encoder.spec, clips.shape[1] // model.encoder.frames_per_map
    num_patches = spec.grid[0] * spec.grid[1]
    counts = [one.shape[-1] / num_maps for one in shares]  # tokens of a frame
    if not shares or len(set(counts)) > 1 or counts[0] not in (spec.num_tokens, num_patches):
        raise ConfigError(
            f"the read-out of {type(model.decoder).__name__} does not read all tokens of all frames, so it "
            "cannot be shown as a picture"
        )
    tokens = torch.stack(shares).unflatten(-1, (num_maps, -1))  # (M,B,T,L), or (M,B,T,P)
    prefix, patches = tokens.split([tokens.shape[-1] - num_patches, num_patches], -1)
    return Explanation(logits, patches.unflatten(-1, spec.grid), prefix.sum((-2, -1)))


@torch.no_grad()
def _attention(model: Classifier, clips: Tensor, readers: Sequence[CrossAttention]) -> tuple[Tensor, list[Tensor]]:
    """Returns the logits, and the attention (B,T·L) of each reader."""
    shares: list[Tensor] = []

    def keep(reader: CrossAttention, arguments: tuple, keywords: dict) -> None:
        shares.append(reader.weights(*arguments, **keywords).mean((1, 2)))

    hooks = [reader.register_forward_pre_hook(keep, with_kwargs=True) for reader in readers]
    try:
        return model(clips), shares
    finally:
        for hook in hooks:
            hook.remove()


def _parts_of_mean(model: Classifier, clips: Tensor, mean: PatchMean) -> tuple[Tensor, list[Tensor]]:
    """Returns the logits, and the share (B,T·P) of each patch in what raises the highest one.

    A patch s raises the logit by s·g per unit of its weight in the mean, where g is the gradient by the mean. Negative
    ones count as 0. Source: Selvaraju et al., "Grad-CAM", arXiv:1610.02391.
    """
    seen: list[Tensor] = []

    def cut(module: PatchMean, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen.extend((inputs[0].detach(), output.detach().requires_grad_()))
        return seen[1]

    hook = mean.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = model(clips)
            (gradient,) = torch.autograd.grad(logits.max(-1).values.sum(), seen[1])
    finally:
        hook.remove()
    s = seen[0].flatten(1, 2)
    parts = (s.to(gradient.dtype) @ gradient[:, :, None]).squeeze(-1).clamp(min=0)  # (B,T·P)
    return logits.detach(), [parts / parts.sum(-1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)]
