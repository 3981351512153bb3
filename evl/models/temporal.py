"""The local temporal module, which adds the changes between neighboring frames (docs/method.md sections 3 and 4).

It has three parts, each of which can be off: a depthwise convolution over time, a table of temporal positions, and
cross-frame attention, which reads the frozen backbone's own queries and keys. All are added into one new token map, the
only tensor of that size, forward and backward.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evl.models.crossframe import add_moved, neighbor_maps, table_gradients, with_moved
from evl.models.time_conv import AROUND, convolved, kernel_gradient
from evl.runtime.precision import without_autocast
from evl.types import LayerFeatures, MappedFeatures


class TemporalConv(nn.Module):
    """The weights of a depthwise convolution over T, kernel 3, zero padding 1, shared by all token positions."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width)


class CrossFrameAttention(nn.Module):
    """Two tables ((2h−1)(2w−1), D) of relative positions, for the frame before and the frame after.

    Neighbor maps weigh their rows, see ``evl.models.crossframe``. h, w: the patch grid.
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        h, w = self.grid = grid
        self.before = nn.Parameter(torch.zeros((2 * h - 1) * (2 * w - 1), width))
        self.after = nn.Parameter(torch.zeros((2 * h - 1) * (2 * w - 1), width))


class LocalTemporalModule(nn.Module):
    """LayerFeatures (B,T,L,D) -> tokens (B,T,L,D) with what changes over time added.

    A = tokens + TemporalConv(tokens); A += position[t]; A += CrossFrame(query, key)

    A has the dtype of ``tokens``. The parameters get gradients, and ``tokens`` if it requires them. Query and key, or
    the maps of MappedFeatures, are frozen and get none.
    """

    def __init__(
        self,
        width: int,
        *,
        num_frames: int | None,
        grid: tuple[int, int] | None,
        conv: bool = True,
        position: bool = True,
        cross_frame: bool = True,
    ):
        super().__init__()
        if position and num_frames is None:
            raise ValueError("temporal position needs num_frames")
        if cross_frame and grid is None:
            raise ValueError("cross-frame attention needs the patch grid (h, w)")
        self.conv = TemporalConv(width) if conv else None
        self.position = nn.Parameter(torch.zeros(num_frames, width)) if position else None  # (T,D)
        self.cross_frame = CrossFrameAttention(width, grid) if cross_frame else None

    def forward(self, features: LayerFeatures | MappedFeatures) -> Tensor:
        tokens = features.tokens
        if self.position is not None and tokens.shape[1] != len(self.position):
            raise ValueError(f"clips of {tokens.shape[1]} frames, but this decoder was made for {len(self.position)}")
        weight = bias = before = after = grid = None
        if self.conv is not None:
            weight, bias = self.conv.conv.weight, self.conv.conv.bias
        if self.cross_frame is not None:
            before, after, grid = self.cross_frame.before, self.cross_frame.after, self.cross_frame.grid
        return add_temporal(features, weight, bias, self.position, before, after, grid)


def add_temporal(
    features: LayerFeatures | MappedFeatures,
    weight: Tensor | None,
    bias: Tensor | None,
    position: Tensor | None,
    before: Tensor | None,
    after: Tensor | None,
    grid: tuple[int, int] | None,
) -> Tensor:
    """Returns the sum A of ``LocalTemporalModule``, with the shape and dtype of the tokens (B,T,L,D).

    ``weight`` (D,1,3) and ``bias`` (D) belong to the convolution; ``position`` is (T,D); ``before``, ``after`` and
    ``grid`` are those of CrossFrameAttention. The tensors of a part that is off are None. Raises ValueError for fewer
    tokens than the grid has patches.
    """
    tokens, maps = features.tokens, ()
    if before is not None:
        if tokens.shape[2] < grid[0] * grid[1]:
            patches = grid[0] * grid[1]
            raise ValueError(f"{tokens.shape[2]} tokens per frame, but a grid of {grid} has {patches} patches")
        if isinstance(features, MappedFeatures):
            maps = features.maps
        else:
            maps = neighbor_maps(features.query, features.key, grid, tokens.dtype)
    if weight is None and position is None and before is None:
        return tokens
    if torch.compiler.is_exporting():  # the hand-written gradient is not part of an exported program
        a = _convolved(tokens, weight, _constants(tokens, bias, position))
        return a if before is None else with_moved(a, maps, before, after, grid)
    return _AddTemporal.apply(tokens, weight, bias, position, before, after, grid, *maps)


class _AddTemporal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        # *inputs, because torch 2.11's compiler omits ctx if there are as many inputs as parameter names (two maps)
        tokens, weight, bias, position, before, after, grid, *maps = inputs
        ctx.grid = grid
        ctx.save_for_backward(tokens, weight, bias, position, before, after, *maps)
        # contiguous for any order of the tokens in memory, because add_moved writes into views of it
        a = _convolved(tokens, weight, _constants(tokens, bias, position))
        if not a.is_contiguous():
            a = a.contiguous()
        if before is not None:
            add_moved(a, maps, before, after, grid)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        tokens, weight, bias, position, before, _after, *maps = ctx.saved_tensors
        grads = dict.fromkeys(("tokens", "weight", "bias", "position", "before", "after"))
        with without_autocast(grad.device):
            if ctx.needs_input_grad[0]:  # the convolution with a reversed kernel
                flipped = None if weight is None else weight.flip(-1)
                grads["tokens"] = _convolved(grad, flipped, None)
            if bias is not None or position is not None:
                ones = grad.new_ones(grad.shape[0] * grad.shape[1], 1, grad.shape[2])  # a product is the fastest sum
                per_frame = torch.bmm(ones, grad.flatten(0, 1)).view(grad.shape[:2] + grad.shape[3:])
                per_frame = per_frame.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32))  # (T,D)
                grads["position"] = None if position is None else per_frame.to(position.dtype)
                grads["bias"] = None if bias is None else per_frame.sum(0).to(bias.dtype)
            if weight is not None:
                grads["weight"] = kernel_gradient(grad, tokens, AROUND).to(weight.dtype)
            if before is not None:
                sums = table_gradients(grad, maps, ctx.grid)
                grads["before"], grads["after"] = (one.to(before.dtype) for one in sums)
        return (*grads.values(), None, *(None for _ in maps))


def _constants(tokens: Tensor, bias: Tensor | None, position: Tensor | None) -> Tensor:
    """Returns what is added to every token of a frame: (T,1,D)."""
    constants = tokens.new_zeros(
        tokens.shape[1], 1, tokens.shape[-1], dtype=torch.promote_types(tokens.dtype, torch.float32)
    )
    if bias is not None:
        constants = constants + bias
    if position is not None:
        constants = constants + position[:, None]
    return constants.to(tokens.dtype)


def _convolved(tokens: Tensor, weight: Tensor | None, constants: Tensor | None) -> Tensor:
    """Returns tokens + conv(tokens) + constants, a new map (B,T,L,D)."""
    if weight is None:
        return tokens.clone() if constants is None else tokens + constants
    first, here, last = weight[:, 0].T  # (D) each, for the frame before, this frame, the frame after
    return convolved(tokens, torch.stack([first, 1 + here, last]), AROUND, constants)
