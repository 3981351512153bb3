"""The EVL decoder: layer by layer, query tokens attend to all tokens of all frames of the tapped blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from evl.config import ModelConfig
from evl.errors import CheckpointError
from evl.models.attention import CrossAttention, attention_sizes
from evl.models.mlp import MLP, QuickGELU
from evl.models.temporal import LocalTemporalModule
from evl.runtime.precision import without_autocast
from evl.types import BackboneSpec, LayerFeatures


class DecoderLayer(nn.Module):
    """One layer of docs/method.md section 3: x (B,Q,D) and the LayerFeatures of a tapped block -> x (B,Q,D).

    A = local temporal module(features), flattened to (B, T·L, D)
    x = x + MHA(q = LN1(x), k = v = LN3(A));  x = x + MLP(LN2(x))
    """

    def __init__(self, width: int, qkv_width: int, num_heads: int, mlp_width: int, dropout: float, **temporal):
        super().__init__()
        self.temporal = LocalTemporalModule(width, **temporal)
        self.norm_query = nn.LayerNorm(width, eps=1e-5)  # LN1
        self.norm_tokens = nn.LayerNorm(width, eps=1e-5)  # LN3
        self.attention = CrossAttention(width, qkv_width, num_heads)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-5)  # LN2
        self.mlp = MLP(width, mlp_width, dropout, QuickGELU())
        for linear in (self.mlp.fc1, self.mlp.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor, features: LayerFeatures) -> Tensor:
        tokens = self.temporal(features).flatten(1, 2)  # (B,T·L,D)
        x = x + self.attention(self.norm_query(x), tokens, self.norm_tokens)
        return x + self.mlp(self.norm_mlp(x))


class EVLDecoder(nn.Module):
    """Features of M tapped blocks, shallow to deep -> one vector per clip, (B,D).

    Args:
        width: D of the features.
        num_layers: M; there is a decoder layer for each tapped block.
        num_frames: T; only needed with ``temporal_position``.
        grid: (h, w) of the patches; only needed with ``cross_frame``.
        qkv_width: inner width of the attention; by default D.
        num_heads: number of attention heads; by default they are 64 wide.
        num_queries: Q query tokens, which do not attend to each other; their results are averaged. The method has 1.
        query_init: ``normal`` (std 0.02), or ``zero``, only for one query: several would stay equal.
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        *,
        num_frames: int | None,
        grid: tuple[int, int] | None,
        num_heads: int | None = None,
        qkv_width: int | None = None,
        mlp_ratio: float = 4.0,
        mlp_dropout: float = 0.0,
        temporal_conv: bool = True,
        temporal_position: bool = True,
        cross_frame: bool = True,
        num_queries: int = 1,
        query_init: str = "normal",
    ):
        super().__init__()
        qkv_width = qkv_width or width
        if query_init not in ("zero", "normal"):
            raise ValueError(f"query_init {query_init!r}: expected 'zero' or 'normal'")
        if num_queries > 1 and query_init == "zero":
            raise ValueError(f"{num_queries} queries that start as zero would stay equal; use query_init='normal'")
        self.width = width
        self.query_token = nn.Parameter(torch.zeros(num_queries, width))  # (Q,D)
        if query_init == "normal":
            nn.init.normal_(self.query_token, std=0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(
                width,
                qkv_width,
                num_heads or max(1, qkv_width // 64),
                round(width * mlp_ratio),
                mlp_dropout,
                num_frames=num_frames,
                grid=tuple(grid) if grid is not None else None,
                conv=temporal_conv,
                position=temporal_position,
                cross_frame=cross_frame,
            )
            for _ in range(num_layers)
        )

    @property
    def reads_maps(self) -> bool:
        """Whether any layer reads neighbor maps."""
        return any(layer.temporal.cross_frame is not None for layer in self.layers)

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        """M × LayerFeatures with tokens (B,T,L,D), query and key (B,T,L,N,K) -> (B,D).

        Features may have a narrower dtype than the parameters; tensors as large as the features then keep it. Autocast
        has no effect. Raises ValueError for another number of blocks.
        """
        if len(features) != len(self.layers):
            raise ValueError(f"{len(features)} tapped blocks were given, but the decoder has {len(self.layers)} layers")
        x = self.query_token.expand(features[0].tokens.shape[0], -1, -1)  # (B,Q,D)
        with without_autocast(x.device):
            for layer, one in zip(self.layers, features, strict=True):
                x = layer(x, one)
        return x.mean(1)

    @classmethod
    def from_config(cls, config: ModelConfig, spec: BackboneSpec, num_frames: int, num_layers: int) -> EVLDecoder:
        """Returns the decoder of ``model.decoder=evl``. Raises ConfigError if sizes do not fit."""
        qkv_width, num_heads = attention_sizes(config, spec)
        return cls(
            spec.width,
            num_layers,
            num_frames=num_frames,
            grid=spec.grid,
            num_heads=num_heads,
            qkv_width=qkv_width,
            mlp_ratio=config.mlp_ratio,
            mlp_dropout=config.mlp_dropout,
            temporal_conv=config.temporal_conv,
            temporal_position=config.temporal_position,
            cross_frame=config.cross_frame,
            num_queries=config.num_queries,
            query_init=config.query_init,
        )

    @classmethod
    def from_release(
        cls, state: Mapping[str, Tensor], *, num_heads: int, num_frames: int, grid: tuple[int, int]
    ) -> EVLDecoder:
        """Returns a decoder with the weights of a released checkpoint (docs/method.md section 6).

        ``state``: the tensors of its decoder, whose keys have no ``module.decoder.``. They determine the sizes and
        which temporal parts are on. Raises CheckpointError if keys or sizes do not fit.
        """
        own = {release_key_to_own(key): tensor for key, tensor in state.items()}
        num_layers = 1 + max((int(m[1]) for key in own if (m := re.match(r"layers\.(\d+)\.", key))), default=-1)
        first = "layers.0."
        for key in (f"{first}mlp.fc1.weight", f"{first}attention.q_proj.weight", "query_token"):
            if key not in own:
                raise CheckpointError(f"not a decoder of a released checkpoint: nothing for {key}")
        mlp_width, width = own[f"{first}mlp.fc1.weight"].shape
        decoder = cls(
            width,
            num_layers,
            num_frames=num_frames,
            grid=grid,
            num_heads=num_heads,
            qkv_width=len(own[f"{first}attention.q_proj.weight"]),
            mlp_ratio=mlp_width / width,
            temporal_conv=f"{first}temporal.conv.conv.weight" in own,
            temporal_position=f"{first}temporal.position" in own,
            cross_frame=f"{first}temporal.cross_frame.before" in own,
        )
        try:
            own["query_token"] = own["query_token"].reshape(1, width)
            decoder.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(f"the released decoder does not fit T={num_frames}, grid={grid}: {error}") from None
        return decoder


_RELEASE_KEYS = [  # (name in the release, ours); i is the layer
    ("cls_token", "query_token"),
    ("decoder_layers.{i}.attn.{rest}", "layers.{i}.attention.{rest}"),
    ("decoder_layers.{i}.mlp.{rest}", "layers.{i}.mlp.{rest}"),
    ("decoder_layers.{i}.norm1.{rest}", "layers.{i}.norm_query.{rest}"),
    ("decoder_layers.{i}.norm2.{rest}", "layers.{i}.norm_mlp.{rest}"),
    ("decoder_layers.{i}.norm3.{rest}", "layers.{i}.norm_tokens.{rest}"),
    ("temporal_conv.{i}.{rest}", "layers.{i}.temporal.conv.conv.{rest}"),
    ("temporal_pos_embed.{i}", "layers.{i}.temporal.position"),
    ("cross_attention.{i}.w1", "layers.{i}.temporal.cross_frame.before"),
    ("cross_attention.{i}.w2", "layers.{i}.temporal.cross_frame.after"),
]


def release_key_to_own(key: str) -> str:
    """Returns the name in EVLDecoder of a released decoder's parameter. Raises CheckpointError if it has none."""
    return _translated(key, _RELEASE_KEYS)


def own_key_to_release(key: str) -> str:
    """Returns the name in a released decoder of a parameter of EVLDecoder. Raises CheckpointError if it has none."""
    return _translated(key, [(ours, theirs) for theirs, ours in _RELEASE_KEYS])


def _translated(key: str, names: list[tuple[str, str]]) -> str:
    for source, target in names:
        pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{rest\}", "(?P<rest>.+)")
        if found := re.fullmatch(pattern, key):
            return target.format(**found.groupdict())
    raise CheckpointError(f"unexpected key {key!r} in a released decoder")
