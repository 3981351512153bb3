"""Stored clips → features.

They are equal to those that the encoder computes, up to the rounding of the store.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from evl.backbones import Taps
from evl.backbones.base import tapped_blocks
from evl.backbones.projections import Projections
from evl.errors import StoreError
from evl.models.crossframe import empty_maps, fill_maps, unpacked_maps
from evl.runtime.precision import without_autocast
from evl.store.description import PROJECTIONS, StoreDescription
from evl.store.store import FeatureStore, StoredClips
from evl.types import EncoderFacts, MappedFeatures


def encoder_of(description: StoreDescription, taps: Taps | None = None, *, needs_maps: bool = False) -> EncoderFacts:
    """The facts about the encoder that made a store. ``taps``: some of the stored blocks; None: all tapped ones.

    Raises StoreError if a block is not stored. ``needs_maps``: also if there are no neighbor maps of it.
    """
    spec, stored = description.spec, description.taps if needs_maps else description.blocks
    taps = description.taps if taps is None else tapped_blocks(taps, spec.depth, spec.name)
    if missing := sorted(set(taps) - set(stored)):
        raise StoreError(
            f"model.taps asks for block {missing[0]} of {spec.name}; the store has {', '.join(map(str, stored))}. "
            "Set model.taps to some of them, or make another store with evl extract"
        )
    return EncoderFacts(spec, description.preprocessing, taps, description.backbone_hash, description.origin)


def open_unpacker(store: FeatureStore, taps: Taps | None = None, *, needs_maps: bool = True) -> Unpacker:
    """The unpacker of a store. Raises StoreError if a block is not stored, or the projections are damaged."""
    projections = None
    if store.description.options.form == "tokens":
        projections = Projections.load(store.path / PROJECTIONS, store.description.spec)
    return Unpacker(store.description, projections, taps, needs_maps=needs_maps)


class Unpacker(nn.Module):
    """StoredClips -> one MappedFeatures per block of ``taps``, from the first block to the deepest.

    ``needs_maps``: whether neighbor maps are made, of the blocks that were tapped for the store. The ``maps`` of other
    features are empty. The attribute ``encoder`` has the facts about the encoder (EncoderFacts).
    """

    def __init__(
        self,
        description: StoreDescription,
        projections: Projections | None = None,
        taps: Taps | None = None,
        *,
        needs_maps: bool = True,
    ):
        super().__init__()
        self.encoder = encoder_of(description, taps)
        self.needs_maps = needs_maps
        if (projections is None) != (description.options.form == "maps"):
            raise ValueError("projections are needed for form=tokens, and for no other form")
        self.mapped = {*self.encoder.taps} & {*description.mapped} if needs_maps else set()
        if projections is not None and (missing := sorted(self.mapped - set(projections.blocks))):
            raise StoreError(f"the store has no projections of block {missing[0]}; make it again with evl extract")
        self.projections = None if projections is None else projections.of(tuple(sorted(self.mapped)))
        self._narrow: dict[torch.dtype, Projections] = {}
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: StoredClips, dtype: torch.dtype = torch.float32) -> list[MappedFeatures]:
        """tokens (B,T,L,D), and maps as ``neighbor_maps`` makes them, in ``dtype``; under autocast in its type."""
        device, taps = next(iter(clips.tokens.values())).values.device, self.encoder.taps
        if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        with without_autocast(device):
            if self.projections is None:
                return [
                    MappedFeatures(
                        clips.tokens[block].unpack(dtype),
                        unpacked_maps(clips.maps[block].unpack(dtype), dtype) if block in self.mapped else (),
                    )
                    for block in taps
                ]
            needed = {*taps, *(block - 1 for block in self.mapped)}
            tokens = {block: clips.tokens[block].unpack(dtype) for block in sorted(needed)}
            return [
                MappedFeatures(tokens[block], self._maps(block, tokens[block - 1]) if block in self.mapped else ())
                for block in taps
            ]

    def _maps(self, block: int, inputs: Tensor) -> list[Tensor]:
        """The block's neighbor maps from its inputs (B,T,L,D). On the CPU clip by clip, so that all is in the cache."""
        spec, projections = self.encoder.spec, self._in_type(inputs.dtype)
        maps = empty_maps(*inputs.shape[:2], spec.grid, inputs)
        patches = inputs[:, :, spec.num_prefix_tokens :]
        at_once = 1 if inputs.device.type == "cpu" else len(inputs)
        for start in range(0, len(inputs), at_once):
            part = slice(start, start + at_once)
            query, key = projections.queries_keys(block, patches[part].flatten(0, 1), patches_only=True)
            query, key = (x.unflatten(0, (-1, inputs.shape[1])) for x in (query, key))
            fill_maps(maps, part, query, key, spec.grid)
        return maps

    def _in_type(self, dtype: torch.dtype) -> Projections:
        """The projections in ``dtype``: the same object, or a copy that is kept."""
        if next(self.projections.parameters()).dtype == dtype:
            return self.projections
        if dtype not in self._narrow:
            with torch.inference_mode(False):
                self._narrow[dtype] = copy.deepcopy(self.projections).to(dtype)
        return self._narrow[dtype]

    def _apply(self, fn, recurse=True):
        self._narrow.clear()  # the copies would stay on the old device
        return super()._apply(fn, recurse)
