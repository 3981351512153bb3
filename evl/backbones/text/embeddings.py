"""Embeddings in the space that images and texts share: of any CLIP's images, and of the embedded CLIP's texts."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import global_pool_nlc
from torch import Tensor, nn

from evl.backbones.timm_vit import TimmBackbone

LENGTH = 24  # most words of a text, the end included
PAD, END = 0, 1  # these numbers stand for no word


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, without accents, letters and digits only."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", ascii_only.lower())


class WordTextTower(nn.Module):
    """Words (B,LENGTH) as numbers -> unit vectors (B,E).

    It is a causal pre-norm Transformer like CLIP's (Radford et al. 2021, section 2.4), but its tokens are whole words.
    The vector is read at the end of the text. ``vocabulary``: the words, whose numbers start at 2.
    """

    def __init__(self, vocabulary: Sequence[str], width: int, num_layers: int, embed_width: int):
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.number_of = {word: number for number, word in enumerate(self.vocabulary, 2)}
        self.token_embedding = nn.Embedding(len(self.vocabulary) + 2, width)
        self.positional_embedding = nn.Parameter(torch.empty(LENGTH, width))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        layer = nn.TransformerEncoderLayer(
            width, max(1, width // 64), 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.projection = nn.Linear(width, embed_width, bias=False)
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), float("-inf")).triu(1), persistent=False)

    def numbers(self, texts: Sequence[str]) -> Tensor:
        """Returns the texts as numbers of words, (B,LENGTH) int64. Unknown words and the rest of long texts are cut."""
        rows = torch.full((len(texts), LENGTH), PAD)
        for row, text in zip(rows, texts, strict=True):
            known = [self.number_of[word] for word in words_of(text) if word in self.number_of][: LENGTH - 1]
            row[: len(known) + 1] = torch.tensor([*known, END])
        return rows

    def forward(self, numbers: Tensor) -> Tensor:
        length = int((numbers != PAD).sum(1).max())  # the padding after the longest text is not computed
        numbers = numbers[:, :length]
        x = self.token_embedding(numbers) + self.positional_embedding[:length]
        x = self.blocks(x, mask=self.mask[:length, :length], is_causal=True)
        ends = (numbers == END).int().argmax(1)
        return F.normalize(self.projection(x[torch.arange(len(x), device=x.device), ends]), dim=-1)


class ImageEmbedding(nn.Module):
    """Tokens of the last block (F,L,D) -> unit vectors (F,E): the layers after the blocks of a CLIP-like encoder.

    The final norm, the pooling (class token, mean, or attention) and the norm after it are copies of the backbone's.
    The projection is the identity with bias 0 until weights are loaded. The module is frozen, and computes in the dtype
    of its weights.
    """

    def __init__(self, backbone: TimmBackbone, width: int):
        super().__init__()
        vit = backbone.vit
        self.norm, self.attn_pool, self.fc_norm = copy.deepcopy((vit.norm, vit.attn_pool, vit.fc_norm))
        self.pool_type = vit.global_pool
        self.num_prefix_tokens = vit.num_prefix_tokens
        # in timm, the pooling of a VisionTransformer leaves out prefix tokens unless this is True; Eva's reads all
        self.pools_prefix = getattr(vit, "pool_include_prefix", None)
        self.projection = nn.Linear(backbone.spec.width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.attn_pool is None and self.pool_type == "token":
            tokens = tokens[:, :1]
        x = self.norm(tokens.to(self.projection.weight.dtype))
        if self.attn_pool is not None:
            x = self.attn_pool(x[:, self.num_prefix_tokens :] if self.pools_prefix is False else x)
        else:
            x = global_pool_nlc(x, self.pool_type, self.num_prefix_tokens, bool(self.pools_prefix))
        return F.normalize(self.projection(self.fc_norm(x)), dim=-1)
