"""Neighbor maps, and the tables of relative positions that are read through them (docs/method.md section 4).

    out(t)[p] = Σ_p' S[t→t−1][p,p'] · before[r(p,p')] + Σ_p' S[t→t+1][p,p'] · after[r(p,p')]

The gathered table (h·w, h·w, D) is never made. Instead the table is reversed: its rows and columns count p' − p. A
query in row i then needs h contiguous rows of the table, h−1−i … 2h−2−i. A query in column j needs the columns
w−1−j … 2w−2−j, and a block of c neighboring columns needs w + c − 1 of them.

The map of one row and one block of columns is skewed by column: the weights of each query are at its offsets, and zeros
elsewhere. This map times a view of the table is the sum above, for all frames at once. Both neighbors are concatenated
in one table and one map. Backward multiplies by the transpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from evl.runtime.cpu import head_scores, matmul, takes_onednn
from evl.runtime.precision import without_autocast, without_gradients
from evl.types import LayerFeatures, MappedFeatures

Grid = tuple[int, int]
# a wider block multiplies more zeros, by (w + block − 1) / w; a narrower one makes smaller products
COLUMN_BLOCK = 5
SCORES_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # the most memory for attention scores at a time


def block_sizes(w: int) -> list[int]:
    """Returns the widths c of the blocks that w columns are cut into, about equal."""
    count = -(-w // COLUMN_BLOCK)
    return [w * (n + 1) // count - w * n // count for n in range(count)]


def _blocks(w: int) -> list[slice]:
    """Returns, for each block, the w + c − 1 columns of a reversed table that its queries need."""
    ends = accumulate(block_sizes(w))
    return [slice(w - end, 2 * w - 1 - end + c) for end, c in zip(ends, block_sizes(w), strict=True)]


def neighbor_maps(query: Tensor, key: Tensor, grid: Grid, dtype: torch.dtype) -> list[Tensor]:
    """Returns the skewed neighbor maps S of every frame to the frames before and after, without autograd.

    query, key (B,T,L,N,K), prefix tokens first. There is one tensor of ``dtype`` per block of columns, of shape
    (h, B, T, c, h, 2, w+c−1): query row, clip, frame, query column in the block, key row, before/after, offset. Key
    column j' of query column j is at offset j' + c−1 − j. Other offsets, and maps to missing neighbors, are zero.
    """
    maps = empty_maps(*query.shape[:2], grid, query, dtype)
    fill_maps(maps, slice(None), query, key, grid)
    return maps


def empty_maps(b: int, t: int, grid: Grid, like: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Returns skewed maps of b clips of t frames, all zeros, on the device of ``like``, in ``dtype`` or its dtype."""
    h, w = grid
    return [like.new_zeros((h, b, t, c, h, 2, w + c - 1), dtype=dtype) for c in block_sizes(w)]


def fill_maps(maps: list[Tensor], rows: slice, query: Tensor, key: Tensor, grid: Grid) -> None:
    """Writes the maps of the clips ``rows`` into ``maps``, made by ``empty_maps``.

    query and key of these clips are as in ``neighbor_maps``.
    """
    with without_gradients():
        _fill_maps(maps, rows, query, key, grid)


def _fill_maps(maps: list[Tensor], rows: slice, query: Tensor, key: Tensor, grid: Grid) -> None:
    h, w = grid
    b, t, num_tokens, n, _ = query.shape
    query, key = (x[:, :, num_tokens - h * w :].transpose(2, 3) for x in (query, key))  # (B,T,N,P,K)
    targets = [_unskewed(one, w)[:, rows] for one in maps]
    bytes_a_pair = n * (h * w) ** 2 * query.element_size()
    if takes_onednn(query, key) and 4 * bytes_a_pair > SCORES_BYTES["cpu"]:  # many small maps at once are faster
        _fill_frame_by_frame(targets, query, key, grid)
        return
    for clips, frames in _parts(b, t - 1, bytes_a_pair, query.device.type):
        later = slice(frames.start + 1, frames.stop + 1)
        for side, (these, others) in enumerate(((later, frames), (frames, later))):
            mean = _mean_attention(query[clips, these], key[clips, others])
            mean = mean.unflatten(3, grid).unflatten(2, grid).permute(2, 0, 1, 3, 4, 5)  # (h,b,t,w,h,w)
            for target, part in zip(targets, mean.split(block_sizes(w), 3), strict=True):
                target[:, clips, these, :, :, side] = part


def share_maps(
    features: Sequence[LayerFeatures | MappedFeatures], places: Collection[int], grid: Grid
) -> list[LayerFeatures | MappedFeatures]:
    """Returns the features with neighbor maps in place of query and key at ``places``, so that readers share them.

    Features without attention heads (what enters block 1) stay as they are.
    """
    shared = list(features)
    with without_autocast(features[0].tokens.device):
        for place in sorted(places):
            one = shared[place]
            if not isinstance(one, MappedFeatures) and one.query.shape[-2]:
                shared[place] = MappedFeatures(one.tokens, neighbor_maps(one.query, one.key, grid, one.tokens.dtype))
    return shared


def packed_maps(maps: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Returns skewed maps without the zeros between, for storing: (B, T, h, w, h, 2, w) of ``dtype``.

    The last five dimensions are query row and column, key row, before/after, key column.
    """
    w = sum(one.shape[3] for one in maps)
    return torch.cat([_unskewed(one, w) for one in maps], 3).permute(1, 2, 0, 3, 4, 5, 6).to(dtype).contiguous()


def unpacked_maps(packed: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Returns the skewed maps, in ``dtype``, that ``packed_maps`` packed."""
    b, t, h, w = packed.shape[:4]
    maps = empty_maps(b, t, (h, w), packed, dtype)
    parts = packed.permute(2, 0, 1, 3, 4, 5, 6).split(block_sizes(w), 3)
    for one, part in zip(maps, parts, strict=True):
        _unskewed(one, w).copy_(part)
    return maps


def _unskewed(skewed: Tensor, w: int) -> Tensor:
    """Returns a view (h,B,T,c,h,2,w) of a skewed map: its element j, j' is the one at offset j' + c−1 − j."""
    c = skewed.shape[3]
    *outer, row, key_row, side, one = skewed.stride()
    strides = (*outer, row - one, key_row, side, one)  # each row starts one element earlier
    return skewed.as_strided((*skewed.shape[:-1], w), strides, c - 1)


def _parts(b: int, t: int, bytes_a_pair: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Yields parts (clips, frames) whose scores fit into SCORES_BYTES together."""
    if torch.compiler.is_exporting():  # for any number of clips
        yield from ((slice(None), slice(frame, frame + 1)) for frame in range(t))
        return
    # a compiled graph unrolls the loop, so there are few parts then
    budget = 256 << 20 if torch.compiler.is_compiling() else SCORES_BYTES.get(device, 64 << 20)
    pairs = max(1, budget // bytes_a_pair)
    clips_at_once, frames_at_once = max(1, pairs // max(1, t)), min(t, pairs)
    for clip in range(0, b, clips_at_once):
        for frame in range(0, t, max(1, frames_at_once)):
            yield slice(clip, min(b, clip + clips_at_once)), slice(frame, min(t, frame + frames_at_once))


def _mean_attention(query: Tensor, key: Tensor) -> Tensor:
    """(b,t,N,P,K) twice -> (b,t,P,P): softmax over the keys, averaged over heads."""
    b, t, n, p, k = query.shape
    query, key = query.flatten(0, 2), key.flatten(0, 2)
    scores = torch.baddbmm(query.new_empty(1), query, key.mT, beta=0, alpha=k**-0.5)
    # a float32 softmax is faster on the CPU; on a GPU it would write twice the bytes
    wide = torch.promote_types(query.dtype, torch.float32) if query.device.type == "cpu" else query.dtype
    return scores.softmax(-1, dtype=wide).view(b, t, n, p, p).mean(2)


def _fill_frame_by_frame(targets: list[Tensor], query: Tensor, key: Tensor, grid: Grid) -> None:
    """Fills the maps by oneDNN, for the keys of one frame and its neighbors' queries at a time, in the same memory."""
    h, w = grid
    b, t, n, p, k = query.shape
    queries, mean = query.new_empty(2, p, n, k), query.new_empty(2, p, p)
    parts = mean.view(2, h, w, h, w).split(block_sizes(w), 2)
    for clip in range(b):
        for frame in range(t):
            # the frame after looks back at this one (side 0), the frame before looks ahead (side 1)
            neighbors = [(other, side) for other, side in ((frame + 1, 0), (frame - 1, 1)) if 0 <= other < t]
            if not neighbors:  # the clip has one frame
                continue
            count = len(neighbors)
            for place, (other, _) in enumerate(neighbors):
                torch.mul(query[clip, other].transpose(0, 1), k**-0.5, out=queries[place])
            scores = head_scores(queries[:count].flatten(0, 1), key[clip, frame])  # (count·P,N,P)
            torch.mean(scores.softmax(-1), 1, out=mean[:count].flatten(0, 1))
            for target, part in zip(targets, parts, strict=True):
                for place, (other, side) in enumerate(neighbors):
                    target[:, clip, other, :, :, side].copy_(part[place])


def maps_between(
    query: Tensor, key: Tensor, looking: Sequence[int], seen: Sequence[int], grid: Grid, dtype: torch.dtype
):
    """Returns skewed maps S[looking→seen] of P pairs of frames, without autograd: (h,P,1,c,h,1,w+c−1) per block.

    query, key (F,L,N,K): those of F frames. ``looking``, ``seen``: the numbers of the pairs' frames. The maps are those
    of ``neighbor_maps`` for P clips of one frame with one neighbor.
    """
    h, w = grid
    num_pairs, (num_tokens, n, k) = len(looking), query.shape[1:]
    query, key = (x[:, num_tokens - h * w :].transpose(1, 2) for x in (query, key))  # (F,N,P,K)
    maps = [query.new_zeros((h, num_pairs, 1, c, h, 1, w + c - 1), dtype=dtype) for c in block_sizes(w)]
    targets = [_unskewed(one, w) for one in maps]
    bytes_a_pair = n * (h * w) ** 2 * query.element_size()
    is_alone = takes_onednn(query, key) and 4 * bytes_a_pair > SCORES_BYTES["cpu"]
    size = 1 if is_alone else max(1, SCORES_BYTES.get(query.device.type, 64 << 20) // bytes_a_pair)
    with without_gradients():
        for start in range(0, num_pairs, size):
            pairs = slice(start, min(num_pairs, start + size))
            if is_alone:
                scores = head_scores((query[looking[start]] * k**-0.5).transpose(0, 1), key[seen[start]])
                mean = scores.softmax(-1).mean(1)[None, None]
            else:
                mean = _mean_attention(query[list(looking[pairs])][:, None], key[list(seen[pairs])][:, None])
            mean = mean.unflatten(3, grid).unflatten(2, grid).permute(2, 0, 1, 3, 4, 5)  # (h,P,1,w,h,w)
            for target, part in zip(targets, mean.split(block_sizes(w), 3), strict=True):
                target[:, pairs, :, :, :, 0] = part
    return maps


def add_moved(tokens: Tensor, maps: list[Tensor], before: Tensor, after: Tensor, grid: Grid) -> None:
    """Adds out(t) of the equation above to the patch tokens of ``tokens`` (B,T,L,D, contiguous), in place."""
    _add_moved(tokens, maps, _side_by_side([before, after], grid), grid)


def add_one_side(tokens: Tensor, maps: list[Tensor], table: Tensor, grid: Grid) -> None:
    """Adds one of the two sums of out(t) to the patch tokens of ``tokens`` (P,1,L,D), by maps of ``maps_between``."""
    _add_moved(tokens, maps, _side_by_side([table], grid), grid)


def _add_moved(tokens: Tensor, maps: list[Tensor], tables: Tensor, grid: Grid) -> None:
    tables = tables.to(tokens.dtype)
    for skewed, columns, patches in zip(maps, _blocks(grid[1]), _patches(tokens, grid), strict=True):
        table = tables[:, :, columns].contiguous()
        for i, rows in enumerate(skewed.flatten(1, 3).flatten(2)):  # (B·T·c, h·2·(w + c − 1))
            # ``patches[:, i] += …`` would also copy the sum to itself
            patches[:, i].add_(matmul(rows, _window(table, i)).view(len(patches), -1, tokens.shape[-1]))


def with_moved(tokens: Tensor, maps: list[Tensor], before: Tensor, after: Tensor, grid: Grid) -> Tensor:
    """Returns the result of ``add_moved`` as a new tensor, which an exported program can record for any batch size."""
    both = _side_by_side([before, after], grid).to(tokens.dtype)
    blocks = []
    for skewed, columns in zip(maps, _blocks(grid[1]), strict=True):
        windows = torch.stack([_window(both[:, :, columns], i) for i in range(grid[0])])  # (h,h·2·(w + c − 1),D)
        moved = skewed.flatten(4).flatten(1, 3) @ windows  # (h,B·T·c,D)
        blocks.append(moved.unflatten(1, skewed.shape[1:4]))
    moved = torch.cat(blocks, 3).permute(1, 2, 0, 3, 4).flatten(2, 3)  # (B,T,h·w,D)
    prefix, patches = tokens.split([tokens.shape[2] - grid[0] * grid[1], grid[0] * grid[1]], 2)
    return torch.cat([prefix, patches + moved], 2)


def table_gradients(grad: Tensor, maps: list[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """Returns the gradients of ``before`` and ``after`` ((2h−1)(2w−1), D), in float32 at least.

    ``grad`` (B,T,L,D): the gradient of the tokens.
    """
    h, w = grid
    wide = torch.promote_types(grad.dtype, torch.float32)
    both = grad.new_zeros((2 * h - 1, 2, 2 * w - 1, grad.shape[-1]), dtype=wide)
    for skewed, columns, patches in zip(maps, _blocks(w), _patches(grad.contiguous(), grid), strict=True):
        table = torch.zeros_like(both[:, :, columns], memory_format=torch.contiguous_format)
        for i, rows in enumerate(skewed.flatten(1, 3).flatten(2)):
            _window(table, i).add_(matmul(rows.T, patches[:, i].flatten(0, 1)))
        both[:, :, columns] += table
    before, after = both.transpose(0, 1).flip(1, 2).reshape(2, -1, grad.shape[-1])
    return before, after


def _patches(tokens: Tensor, grid: Grid) -> tuple[Tensor, ...]:
    """(B,T,L,D), contiguous -> views (B·T,h,c,D) of its patch tokens, one per block of columns."""
    b, t, num_tokens, width = tokens.shape
    patches = tokens.view(b * t, num_tokens, width)[:, num_tokens - grid[0] * grid[1] :].unflatten(1, grid)
    return patches.split(block_sizes(grid[1]), 2)


def _side_by_side(tables: Sequence[Tensor], grid: Grid) -> Tensor:
    """S tables ((2h−1)(2w−1), D) -> (2h−1, S, 2w−1, D), counting p' − p instead of p − p'."""
    h, w = grid
    return torch.stack(tables).view(len(tables), 2 * h - 1, 2 * w - 1, -1).flip(1, 2).transpose(0, 1)


def _window(table: Tensor, i: int) -> Tensor:
    """Returns the part of a table block (2h−1, S, ·, D) that queries of row i need: a view (h·S·(w + c − 1), D)."""
    h = (len(table) + 1) // 2
    return table[h - 1 - i : 2 * h - 1 - i].flatten(0, 2)
