"""What the decoder looked at: its query's attention over patches and frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evl.errors import ConfigError
from evl.models import Classifier
from evl.models.attention import CrossAttention


@dataclass(frozen=True)
class Explanation:
    """Of B clips and M decoder layers, shallow to deep; for one layer and clip, all shares together sum to 1.

    ``logits`` (B,Y): the model's own. ``attention`` (M,B,T,h,w): the share of each patch of each frame.
    ``prefix_share`` (M,B): what class and register tokens, which have no place in the picture, get together.
    It says where the decoder read, not why the answer is what it is: patch tokens know of the whole frame, and what
    is read much may weigh little.
    """

    logits: Tensor
    attention: Tensor
    prefix_share: Tensor


@torch.no_grad()
def explain(model: Classifier, clips: Tensor) -> Explanation:
    """What the query token of each decoder layer gives to each patch of ``clips`` (B,T,C,H,W), normalised floats.

    Mean over heads, and over query tokens where there are several. Of an attentive probe it is the readout, M = 1; of
    its blocks before that, if any, it says nothing. Judged as in evaluation, without dropout. On the clips' device;
    attention is float32, or double for double. Raises ConfigError for models that read without attention.
    """
    readers = [module for module in model.decoder.modules() if isinstance(module, CrossAttention)]
    if not readers:
        raise ConfigError(
            f"{type(model.decoder).__name__} has no module evl.models.attention.CrossAttention, so it has no attention "
            "to show; explain takes models with model.decoder=evl or attentive, and others that are made of it"
        )
    shares: list[Tensor] = []  # (B,T·L) a layer

    def keep(reader: CrossAttention, arguments: tuple, named: dict) -> None:
        shares.append(reader.weights(*arguments, **named).mean((1, 2)))

    hooks = [reader.register_forward_pre_hook(keep, with_kwargs=True) for reader in readers]
    was_training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not hear hooks
            logits = model(clips)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    spec, num_maps = model.encoder.spec, clips.shape[1] // model.encoder.frames_per_map
    if not shares or any(one.shape[-1] != num_maps * spec.num_tokens for one in shares):
        raise ConfigError(
            f"the CrossAttention of {type(model.decoder).__name__} does not read all tokens of all frames, so its "
            "attention has no place in the picture"
        )
    tokens = torch.stack(shares).unflatten(-1, (-1, spec.num_tokens))  # (M,B,T,L)
    prefix, patches = tokens.split([spec.num_prefix_tokens, spec.grid[0] * spec.grid[1]], -1)
    return Explanation(logits, patches.unflatten(-1, spec.grid), prefix.sum((-2, -1)))
