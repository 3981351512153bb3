"""Explanations: the attention of a decoder's query token over patches and frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evl.errors import ConfigError
from evl.models import Classifier
from evl.models.attention import CrossAttention


@dataclass(frozen=True)
class Explanation:
    """The attention of M decoder layers, shallow to deep, for B clips; the shares of one layer and clip sum to 1.

    ``logits`` (B,Y): the model's own. ``attention`` (M,B,T,h,w): the share of each patch of each frame.
    ``prefix_share`` (M,B): the share of all class and register tokens, which have no place in the picture.

    Attention shows where the decoder read, but not the reason for its answer. A patch token has information about the
    whole frame, and a token with much attention may change the logits only a little.
    """

    logits: Tensor
    attention: Tensor
    prefix_share: Tensor


@torch.no_grad()
def explain(model: Classifier, clips: Tensor) -> Explanation:
    """Computes the attention of each decoder layer's query token for normalized ``clips`` (B,T,C,H,W).

    The attention is the mean over attention heads, and over query tokens if there are several. For an attentive probe
    and for a side network with a query it is that of the readout, so M = 1. A side network's query reads no prefix
    tokens, but a map of its own, into which its layers have mixed other patches of the frame and of its neighbors. The
    model runs in evaluation mode, without dropout. The result is on the clips' device, in float32, or in double for
    double clips. Raises ConfigError for models without cross-attention to all tokens, or to all patches, of all frames.
    """
    readers = [module for module in model.decoder.modules() if isinstance(module, CrossAttention)]
    if not readers:
        raise ConfigError(
            f"{type(model.decoder).__name__} has no module evl.models.attention.CrossAttention, so it has no attention "
            "to show; explain works with model.decoder=evl or attentive, with side if model.side_readout=query, and "
            "with decoders that have such a module"
        )
    shares: list[Tensor] = []  # (B,T·L) per layer

    def keep(reader: CrossAttention, arguments: tuple, keywords: dict) -> None:
        shares.append(reader.weights(*arguments, **keywords).mean((1, 2)))

    hooks = [reader.register_forward_pre_hook(keep, with_kwargs=True) for reader in readers]
    was_training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not call hooks
            logits = model(clips)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    spec, num_maps = model.encoder.spec, clips.shape[1] // model.encoder.frames_per_map
    num_patches = spec.grid[0] * spec.grid[1]
    counts = [one.shape[-1] / num_maps for one in shares]  # tokens of a frame
    if not shares or len(set(counts)) > 1 or counts[0] not in (spec.num_tokens, num_patches):
        raise ConfigError(
            f"the CrossAttention of {type(model.decoder).__name__} does not read all tokens of all frames, so its "
            "attention cannot be shown as a picture"
        )
    tokens = torch.stack(shares).unflatten(-1, (num_maps, -1))  # (M,B,T,L), or (M,B,T,P)
    prefix, patches = tokens.split([tokens.shape[-1] - num_patches, num_patches], -1)
    return Explanation(logits, patches.unflatten(-1, spec.grid), prefix.sum((-2, -1)))
