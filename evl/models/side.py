"""The side network: a narrow token map of its own that goes from tapped block to tapped block (docs/side.md).

Source: Yao et al., "Side4Video", arXiv:2311.15769; the code is written from the equations. Ours are: the start from a
token map of the frozen encoder in place of pixels, the other norms, the causal form and the read-out by a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evl.config import ModelConfig
from evl.decoders import LOOKS_AHEAD, usual_side_norm
from evl.errors import ConfigError
from evl.models.decoder import DecoderLayer
from evl.models.mlp import MLP, linear_like_input
from evl.models.patch_mean import PatchMean
from evl.models.side_norm import BatchNorm, make_norm
from evl.models.side_stream import Past, ReadSoFar, SideState, attend_more, keep_of, mean_more, query_result
from evl.models.tap_reader import TapReader
from evl.models.time_conv import AROUND, PAST, over_time
from evl.runtime.cpu import Linear
from evl.runtime.precision import without_autocast
from evl.types import BackboneSpec, LayerFeatures

READOUTS = ("mean", "query")


def side_sizes(config: ModelConfig, spec: BackboneSpec) -> tuple[int, int]:
    """Returns (d, number of attention heads): ``side_width``, by default about 5/12 of D, and heads 64 wide.

    The default is a multiple of 64: 320 for a ViT-B, 448 for a ViT-L. A width below 128 has one head. Raises
    ConfigError if the number of heads does not divide the width.
    """
    width = config.side_width or 64 * max(1, round(spec.width * 5 / (12 * 64)))
    num_heads = max(1, width // 64)
    if width % num_heads:
        raise ConfigError(f"model.side_width {width}: above 128, take a multiple of 64, such as {num_heads * 64}")
    return width, num_heads


class TimeMixer(nn.Module):
    """W2·DW(W1·norm(s)) for s (B,T,P,d): a depthwise convolution over three frames between two linear layers."""

    def __init__(self, width: int, norm: str, causal: bool):
        super().__init__()
        self.causal = causal
        self.norm = make_norm(norm, width)
        self.fc1 = Linear(width, width)  # W1
        self.conv = nn.Conv1d(width, width, kernel_size=3, groups=width)  # DW; ``over_time`` pads with zeros
        self.fc2 = Linear(width, width)  # W2

    def forward(self, s: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the result (B,T,P,d) and the convolution's input, which starts with ``past``, that of two frames
        before."""
        moved = linear_like_input(self.fc1, self.norm(s))
        known = moved if past is None else torch.cat([past, moved], 1)
        mixed = over_time(known, self.conv.weight, self.conv.bias, PAST if self.causal else AROUND)
        return linear_like_input(self.fc2, mixed[:, known.shape[1] - s.shape[1] :]), known


class FrameAttention(nn.Module):
    """Self-attention of the patches of a frame, which also read the frame's class row: (B,T,P,d) -> (B,T,P,d)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)

    def forward(self, patches: Tensor, class_rows: Tensor | None) -> Tensor:
        """patches (B,T,P,d) with positions; class_rows (B,T,d), or None for an encoder without prefix tokens."""
        b, t, num_patches, _ = patches.shape
        tokens = patches if class_rows is None else torch.cat([class_rows[:, :, None], patches], 2)
        qkv = linear_like_input(self.qkv_proj, tokens).flatten(0, 1).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B·T,N,S,K) each
        gathered = F.scaled_dot_product_attention(q[:, :, -num_patches:], k, v)
        return linear_like_input(self.out_proj, gathered.transpose(1, 2).flatten(2).unflatten(0, (b, t)))


class SideLayer(nn.Module):
    """One layer, for state s (B,T,P,d) and z = ``tap(Y)`` (B,T,L,d) of the tokens Y (B,T,L,D) of a tapped block:

    z = Linear(LayerNorm(Y));  s = ½ s + ½ z[patches];  s = s + W2·DW(W1·norm(s))
    s = s + MHA in each frame over [class row of z, shifted in time; s + E];  s = s + MLP(norm(s))
    """

    def __init__(self, width: int, side_width: int, num_heads: int, mlp_width: int, norm: str, causal: bool):
        super().__init__()
        self.causal = causal
        self.tap = TapReader(width, side_width)
        self.time = TimeMixer(side_width, norm, causal)
        self.attention = FrameAttention(side_width, num_heads)
        self.norm_mlp = make_norm(norm, side_width)
        self.mlp = MLP(side_width, mlp_width, 0.0, nn.GELU())

    def forward(self, s: Tensor, z: Tensor, position: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Returns the new state, and what the next frames need of the last two (only of a causal layer).

        position (P,d): E. ``past``: what these frames need of the two before, in a causal layer.
        """
        num_prefix = z.shape[2] - s.shape[2]
        s = torch.lerp(s, z[:, :, num_prefix:], 0.5)
        mixed, moved = self.time(s, None if past is None else past.moved)
        s = s + mixed
        shifted = rows = z[:, :, 0] if num_prefix else None  # the first prefix token
        if rows is not None:
            rows = rows if past is None else torch.cat([past.class_rows, rows], 1)
            shifted = shift_in_time(rows, self.causal)[:, rows.shape[1] - s.shape[1] :]
        s = s + self.attention(s + position.to(s.dtype), shifted)
        s = s + self.mlp(self.norm_mlp(s))
        return s, Past(moved[:, -2:], s.new_zeros(s.shape[0], 2, s.shape[-1]) if rows is None else rows[:, -2:])


def shift_in_time(rows: Tensor, causal: bool) -> Tensor:
    """Class rows (B,T,d): half of the channels of the next frame, half of the frame before; zeros beyond the ends.

    ``causal``: half of the frame before, half of the frame before that.
    """
    half = rows.shape[-1] // 2
    first, second = rows[..., :half], rows[..., half:]
    if causal:
        return torch.cat([_delayed(first, 1), _delayed(second, 2)], -1)
    return torch.cat([F.pad(first[:, 1:], (0, 0, 0, 1)), _delayed(second, 1)], -1)


def _delayed(rows: Tensor, count: int) -> Tensor:
    """(B,T,d) -> the same shape: each frame has the row of ``count`` frames before."""
    num_frames = rows.shape[1]
    return F.pad(rows, (0, 0, count, 0))[:, :num_frames]


class SideDecoder(nn.Module):
    """Features of a start and of M tapped blocks, shallow to deep -> one vector per clip, (B,d).

    The first features give the start s = Linear(LayerNorm(patches)); each of the others has a layer. The mean read-out
    is BatchNorm(mean of s over frames and patches). The query read-out is a layer of the EVL decoder that reads s.

    Args:
        width: D of the features.
        num_layers: M, without the start.
        grid: (h, w) of the patches.
        side_width: d.
        num_heads: attention heads, by default 64 wide.
        mlp_ratio: hidden width of the MLPs / d.
        norm: see ``evl.models.side_norm``; None: ``channel``, or ``batch`` for a causal network.
        causal: a frame reads no frame after it.
        readout: ``mean`` or ``query``.
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        *,
        grid: tuple[int, int],
        side_width: int,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        norm: str | None = None,
        causal: bool = False,
        readout: str = "mean",
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"{num_layers} layers: a side network needs a start and at least one tapped block")
        if readout not in READOUTS:
            raise ValueError(f"readout {readout!r}: expected {' or '.join(READOUTS)}")
        norm = norm or usual_side_norm(causal)
        if causal and norm in LOOKS_AHEAD:
            raise ValueError(f"norm {norm!r} takes statistics of a whole clip, so the network cannot be causal")
        num_heads = num_heads or max(1, side_width // 64)
        self.width, self.grid, self.causal = side_width, tuple(grid), causal
        self.start = TapReader(width, side_width)
        self.position = nn.Parameter(torch.empty(grid[0] * grid[1], side_width))  # E
        sizes = width, side_width, num_heads, round(side_width * mlp_ratio), norm, causal
        self.layers = nn.ModuleList(SideLayer(*sizes) for _ in range(num_layers))
        self.mean, self.norm = (PatchMean(), BatchNorm(side_width)) if readout == "mean" else (None, None)
        self.least_clips = 2 if readout == "mean" else 1  # in training: the batch norm of one clip is a constant
        self.query_token = self.reader = None
        if readout == "query":
            self.query_token = nn.Parameter(torch.empty(1, side_width))
            parts = dict(num_frames=None, grid=None, conv=False, position=False, cross_frame=False)
            self.reader = DecoderLayer(side_width, side_width, num_heads, round(side_width * mlp_ratio), 0.0, **parts)
        self.reset_parameters()

    @classmethod
    def from_config(cls, config: ModelConfig, spec: BackboneSpec, num_frames: int, num_layers: int) -> SideDecoder:
        """Returns the decoder of ``model.decoder=side``; ``num_layers`` includes the start.

        Raises ConfigError if sizes do not fit.
        """
        width, num_heads = side_sizes(config, spec)
        return cls(
            spec.width,
            num_layers - 1,
            grid=spec.grid,
            side_width=width,
            num_heads=num_heads,
            mlp_ratio=config.mlp_ratio,
            norm=config.side_norm,
            causal=config.causal,
            readout=config.side_readout or "mean",
        )

    def reset_parameters(self) -> None:
        """Sets the initial values of docs/side.md; parameters that are not named there keep PyTorch's."""
        width = self.width
        nn.init.normal_(self.position, std=0.01)
        if self.query_token is not None:
            nn.init.normal_(self.query_token, std=0.02)
        for layer in self.layers:
            nn.init.normal_(layer.attention.qkv_proj.weight, std=width**-0.5)
            nn.init.normal_(layer.attention.out_proj.weight, std=(24 * width) ** -0.5)
            nn.init.zeros_(layer.attention.qkv_proj.bias)  # as torch.nn.MultiheadAttention
            nn.init.zeros_(layer.attention.out_proj.bias)
            nn.init.normal_(layer.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(layer.mlp.fc2.weight, std=(24 * width) ** -0.5)
            _add_difference(layer.time.conv.weight)

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        """(1 + M) × LayerFeatures with tokens (B,T,L,D) -> (B,d); query and key are not read.

        Features may have a narrower dtype than the parameters; tensors as large as the state then keep it. Autocast
        has no effect. Raises ValueError for another number of features or fewer tokens than the grid has patches.
        """
        with without_autocast(features[0].tokens.device):
            return self.read(self.run_layers([one.tokens for one in features])[0])

    def read(self, s: Tensor) -> Tensor:
        """The read-out: the last state (B,T,P,d) -> (B,d)."""
        if self.reader is None:
            return self.norm(self.mean(s))
        query = self.query_token.expand(s.shape[0], -1, -1)  # ``len`` would fix the batch of an exported program
        return self.reader(query, LayerFeatures(s, None, None)).squeeze(1)

    @torch.no_grad()
    def start_state(self, batch: int, *, memory: float | None = None) -> SideState:
        """Returns the state of ``batch`` streams before their first frame, for ``step``.

        ``memory``: the number of frames after which the weight of a frame in the read-out has fallen to about a third,
        for endless streams; None: all frames count alike, as in a clip. Raises ValueError for a network that is not
        causal, or in training.
        """
        self._require_streaming()
        like, num_patches = self.position, self.grid[0] * self.grid[1]
        past = Past(like.new_zeros(batch, 2, num_patches, self.width), like.new_zeros(batch, 2, self.width))
        num_readings = 1 if self.reader is None else self.reader.attention.num_heads
        total, weight = like.new_zeros(batch, num_readings, self.width), like.new_zeros(batch, num_readings)
        highest = weight if self.reader is None else torch.full_like(weight, -torch.inf)
        return SideState((past,) * len(self.layers), ReadSoFar(total, weight, highest), keep_of(memory))

    @torch.no_grad()
    def step(self, state: SideState, features: Sequence[LayerFeatures]) -> tuple[Tensor, SideState]:
        """Reads the next frames of B streams: (1 + M) × LayerFeatures with tokens (B,T,L,D), T ≥ 1 -> ((B,d), state).

        The vector is that of all frames so far. ``state`` is not changed. Raises as ``start_state``.
        """
        self._require_streaming()
        with without_autocast(features[0].tokens.device):
            tokens = [one.tokens.to(self.position.dtype) for one in features]
            s, past = self.run_layers(tokens, state.past)
            if self.reader is None:
                read = mean_more(state.read, s.mean(2), state.keep)
                vectors = self.norm(read.total / read.weight[..., None])
            else:
                query, norm = self.query_token.expand(s.shape[0], -1, -1), self.reader.norm_tokens
                reading = self.reader.attention.reading(self.reader.norm_query(query), norm).flatten(1, 2)
                read = attend_more(state.read, s, reading, norm.eps, state.keep)
                vectors = query_result(self.reader, query, read)
            return vectors.squeeze(1), SideState(tuple(past), read, state.keep)

    def _require_streaming(self) -> None:
        if not self.causal:
            raise ValueError(
                "a side network reads frames one by one only if it is causal: train with model.causal=true"
            )
        if self.training:
            raise ValueError(
                "frames one by one need evaluation mode, where no norm depends on other clips: call eval()"
            )

    def run_layers(self, tokens: Sequence[Tensor], past: Sequence[Past] | None = None) -> tuple[Tensor, list[Past]]:
        """(1 + M) × tokens (B,T,L,D) -> the last state (B,T,P,d), and what each layer keeps for the next frames."""
        return self.mix(self.read_taps(tokens), past)

    def read_taps(self, tokens: Sequence[Tensor]) -> Iterator[Tensor]:
        """Single frames: (1 + M) × tokens (B,T,L,D) -> the first state (B,T,P,d), then z (B,T,L,d) of each layer."""
        if len(tokens) != 1 + len(self.layers):
            raise ValueError(
                f"{len(tokens)} token maps were given, but this side network reads a start and {len(self.layers)} "
                "tapped blocks"
            )
        num_patches = self.grid[0] * self.grid[1]
        if tokens[0].shape[2] < num_patches:
            raise ValueError(
                f"{tokens[0].shape[2]} tokens per frame, but a grid of {self.grid} has {num_patches} patches"
            )
        yield self.start(tokens[0][:, :, -num_patches:])
        for layer, own in zip(self.layers, tokens[1:], strict=True):
            yield layer.tap(own)

    def mix(self, read: Iterable[Tensor], past: Sequence[Past] | None = None) -> tuple[Tensor, list[Past]]:
        """What ``read_taps`` made of clips -> as ``run_layers``."""
        read = iter(read)
        s, kept = next(read), []
        for place, (layer, z) in enumerate(zip(self.layers, read, strict=True)):
            s, its_past = layer(s, z, self.position, None if past is None else past[place])
            kept.append(its_past)
        return s, kept


@torch.no_grad()
def _add_difference(kernel: Tensor) -> None:
    """Makes depthwise kernels (d,1,3) differences of frames: ±(−½, 0, ½), the sign by chance, plus a tenth of before.

    From the first step, each channel then holds what changed between two frames (docs/evidence.md).
    """
    sign = torch.empty(len(kernel), 1, 1, device=kernel.device).bernoulli_().mul_(2).sub_(1)
    kernel.mul_(0.1).add_(sign * kernel.new_tensor([-0.5, 0.0, 0.5]))
