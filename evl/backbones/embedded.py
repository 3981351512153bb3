"""The encoder that comes with evl: a small CLIP, trained on drawings (docs/embedded-clip.md).

Its name stands for one file for ever: saved models go by its sizes. Other weights will need another name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evl.backbones.text.words import WordTextTower, words_of
from evl.backbones.timm_vit import random_weights_
from evl.backbones.weights.activation import activation_of
from evl.config import BackboneConfig
from evl.errors import BackboneError
from evl.types import Preprocessing, WeightsOrigin

EMBEDDED = "evl_clip_tiny"
LITTLE_WORDS = {"a", "an", "the", "of", "and", "at", "in", "on", "with"}  # say nothing by themselves
log = logging.getLogger("evl")
_unknown: ContextVar[dict[str, list[str]] | None] = ContextVar("unknown", default=None)  # class name -> words
FILE = Path(__file__).parents[1] / "assets" / f"{EMBEDDED}.safetensors"

preprocessing_of_embedded = partial(
    Preprocessing, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear", antialias=True
)


def load_embedded(config: BackboneConfig, *, empty: bool = False) -> tuple[VisionTransformer, WeightsOrigin]:
    """The encoder of images and where its weights are from. ``pretrained=False``: those its training started from.

    ``empty``: whoever asks will fill it. Raises BackboneError where ``config`` has weights of its own.
    """
    if config.weights is not None:
        raise BackboneError(f"{config.name} has weights of its own; leave backbone.weights unset")
    vit = _vit()
    if not empty:
        if config.pretrained:
            vit.load_state_dict(_tensors("visual."))
        else:
            start_weights_(vit)
    kind = "embedded" if config.pretrained else "random"
    return vit, WeightsOrigin(kind, config.name, "timm", activation_of(vit), "apache-2.0")


@torch.no_grad()
def start_weights_(vit: VisionTransformer) -> None:
    """Random weights from a fixed seed; positions are sines and cosines of row and column, half as large as Beyer et
    al.'s (2022), as training started."""
    random_weights_(vit, seed=0)
    side, width = vit.patch_embed.grid_size[0], vit.embed_dim
    frequencies = 1 / 10000 ** (torch.arange(width // 4) / (width // 4 - 1))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    phases = [place.flatten()[:, None] * frequencies for place in (column, row)]
    vit.pos_embed[:, 1:] = 0.5 * torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], 1)


@contextmanager
def unknown_words_on_one_line() -> Iterator[None]:
    """Words of class names that the embedded CLIP does not know are logged when the block ends: on one line, of all
    texts that were opened inside."""
    if _unknown.get() is not None:  # an outer block will log them
        yield
        return
    token = _unknown.set(unknown := {})
    try:
        yield
    finally:
        _unknown.reset(token)
    if unknown:
        words = list(dict.fromkeys(word for left_out in unknown.values() for word in left_out))
        more = f", … ({len(words)} words)" if len(words) > 5 else ""
        name = next(iter(unknown))
        log.warning(
            "the embedded CLIP leaves out words that it does not know: %s%s; they are in %d class name%s, such as %r",
            ", ".join(words[:5]), more, len(unknown), "s" * (len(unknown) > 1), name,
        )  # fmt: skip


def open_embedded_text(class_names: Sequence[str]) -> tuple[WordTextTower, Tensor, Tensor]:
    """(text tower in evaluation mode, projection of images (E,D), logit scale). BackboneError for a class name of
    which no word is known."""
    told = _told()
    sizes = told["sizes"]
    tower = WordTextTower(told["words"], sizes["text_width"], sizes["text_layers"], sizes["embed_width"]).eval()
    tower.load_state_dict(_tensors("text."))
    unknown = {}
    for name in class_names:
        words = [word for word in words_of(name) if word not in LITTLE_WORDS]
        if left_out := [word for word in words if word not in tower.number_of]:
            unknown[name] = left_out
        if len(left_out) == len(words):
            raise BackboneError(
                f"the embedded CLIP knows no word of the class name {name!r}: it learned {len(tower.vocabulary):,} "
                "words, mostly of animals, food, vehicles and things; for others take a larger CLIP with --backbone"
            )
    with unknown_words_on_one_line():
        _unknown.get().update(unknown)
    own = _tensors("")
    return tower, own["projection.weight"], own["logit_scale"].exp().clamp(max=100)  # as in training


def _vit() -> VisionTransformer:
    sizes = _told()["sizes"]
    return VisionTransformer(
        img_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["width"] // 64,
        num_classes=0,
        global_pool=sizes["pool"],
        fc_norm=False,
    )


def _told() -> dict:
    """What the file says of itself: ``sizes`` and ``words``."""
    with safe_open(FILE, "pt") as file:
        return json.loads(file.metadata()["clip"])


def _tensors(prefix: str) -> dict[str, Tensor]:
    """Those whose name begins so, without it, in float32: the file has half precision."""
    with safe_open(FILE, "pt") as file:
        return {
            key.removeprefix(prefix): file.get_tensor(key).to(torch.float32)
            for key in file.keys()  # noqa: SIM118 (it is no dict)
            if key.startswith(prefix)
        }
