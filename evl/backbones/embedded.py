"""The encoder that comes with evl: a small CLIP, trained on drawings (docs/embedded-clip.md).

Saved models rely on the sizes in this file, so the name always means the same file. Other weights need another name.
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

from evl.backbones.text.embeddings import WordTextTower, words_of
from evl.backbones.timm_vit import random_weights_
from evl.backbones.weights.unrecorded import activation_of
from evl.config import BackboneConfig
from evl.errors import BackboneError
from evl.types import Preprocessing, WeightsOrigin

EMBEDDED = "evl_clip_tiny"
LITTLE_WORDS = {"a", "an", "the", "of", "and", "at", "in", "on", "with"}  # have no meaning by themselves
log = logging.getLogger("evl")
_unknown: ContextVar[dict[str, list[str]] | None] = ContextVar("unknown", default=None)  # class name -> words
FILE = Path(__file__).parents[1] / "assets" / f"{EMBEDDED}.safetensors"

preprocessing_of_embedded = partial(
    Preprocessing, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear", antialias=True
)


def load_embedded(config: BackboneConfig, *, empty: bool = False) -> tuple[VisionTransformer, WeightsOrigin]:
    """Returns the image encoder and the origin of its weights.

    With ``pretrained=False`` the weights are those that its training started from. With ``empty`` no weights are
    loaded, because the caller loads its own. Raises BackboneError if ``config`` names a weights file.
    """
    if config.weights is not None:
        raise BackboneError(f"{config.name} comes with its weights; leave backbone.weights unset")
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
    """Fills ``vit`` with the weights that its training started from: random ones from a fixed seed.

    Positions are sines and cosines of row and column, half as large as those of Beyer et al. (2022).
    """
    random_weights_(vit, seed=0)
    side, width = vit.patch_embed.grid_size[0], vit.embed_dim
    frequencies = 1 / 10000 ** (torch.arange(width // 4) / (width // 4 - 1))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    phases = [place.flatten()[:, None] * frequencies for place in (column, row)]
    vit.pos_embed[:, 1:] = 0.5 * torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], 1)


@contextmanager
def unknown_words_on_one_line() -> Iterator[None]:
    """Logs the unknown words of all class names that are opened inside the block, on one line, when the block ends.

    A word is unknown if the vocabulary of the embedded CLIP does not have it.
    """
    if _unknown.get() is not None:  # an outer block logs them
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
    """Returns (text tower in evaluation mode, projection of images (E,D), logit scale).

    Raises BackboneError for a class name without any known word.
    """
    metadata = _metadata()
    sizes = metadata["sizes"]
    tower = WordTextTower(metadata["words"], sizes["text_width"], sizes["text_layers"], sizes["embed_width"]).eval()
    tower.load_state_dict(_tensors("text."))
    unknown = {}
    for name in class_names:
        words = [word for word in words_of(name) if word not in LITTLE_WORDS]
        if left_out := [word for word in words if word not in tower.number_of]:
            unknown[name] = left_out
        if len(left_out) == len(words):
            raise BackboneError(
                f"the embedded CLIP knows no word of the class name {name!r}: it learned {len(tower.vocabulary):,} "
                "words, mostly of animals, food, vehicles and things; for others take a larger CLIP as `backbone`"
            )
    with unknown_words_on_one_line():
        _unknown.get().update(unknown)
    own = _tensors("")
    return tower, own["projection.weight"], own["logit_scale"].exp().clamp(max=100)  # as in training


def _vit() -> VisionTransformer:
    sizes = _metadata()["sizes"]
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


def _metadata() -> dict:
    with safe_open(FILE, "pt") as file:
        return json.loads(file.metadata()["clip"])


def _tensors(prefix: str) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with ``prefix``, by the rest of the name, in float32."""
    with safe_open(FILE, "pt") as file:
        return {
            key.removeprefix(prefix): file.get_tensor(key).to(torch.float32)
            for key in file.keys()  # noqa: SIM118 (it is no dict)
            if key.startswith(prefix)
        }
