"""A backbone that is a store: what the encoder said of each clip, in the encoder's place."""

from __future__ import annotations

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone, Taps
from evl.backbones.base import tapped_blocks
from evl.backbones.projections import Projections
from evl.distributed import without_autocast
from evl.errors import StoreError
from evl.features.description import StoreDescription
from evl.features.store import FeatureStore, StoredClips
from evl.models.crossframe import empty_maps, fill_maps, unpacked_maps
from evl.types import LayerFeatures, MappedFeatures

PROJECTIONS = "projections.safetensors"


def stored_backbone(store: FeatureStore, taps: Taps | None = None) -> StoredBackbone:
    """The backbone that a store stands for; ``taps``: some of the stored blocks, None: all. Raises StoreError where the
    store has not got them, or its projections are damaged."""
    description = store.description
    projections = None
    if description.options.form == "tokens":
        projections = Projections.load(store.path / PROJECTIONS, description.spec)
    return StoredBackbone(description, projections, taps)


class StoredBackbone(FrozenBackbone):
    """StoredClips -> one MappedFeatures a tapped block, shallow to deep: what the live backbone and
    ``evl.models.crossframe.neighbour_maps`` give, to the rounding of the store.

    Its ``spec``, ``preprocessing``, ``weights_hash`` and ``origin`` are the encoder's, so that a classifier on it is
    saved as one on the encoder, which loading builds. Of the encoder it holds the projections at most.

    ``needs_maps``: whether anything reads attention maps; where not, none are made or unpacked, and ``maps`` is empty.
    """

    has_encoder = False

    def __init__(self, description: StoreDescription, projections: Projections | None = None, taps: Taps | None = None):
        spec, stored = description.spec, description.taps
        taps = stored if taps is None else tapped_blocks(taps, spec.depth, spec.name)
        if missing := sorted(set(taps) - set(stored)):
            raise StoreError(
                f"model.taps asks for block {missing[0]} of {spec.name}; the store has {', '.join(map(str, stored))}. "
                "Set model.taps to some of them, or extract anew"
            )
        if (projections is None) != (description.options.form == "maps"):
            raise ValueError("projections go with form=tokens, and only with it")
        super().__init__(spec, description.preprocessing, taps)
        if projections is not None and (missing := sorted(set(taps) - set(projections.blocks))):
            raise StoreError(f"the store has no projections of block {missing[0]}; extract it anew")
        self.projections = None if projections is None else projections.of(self.taps)
        self.origin = description.origin
        self.needs_maps = True
        self.register_buffer(
            "_like", torch.zeros(()), persistent=False
        )  # follows where the model is moved, and its type
        self._stored_hash = description.backbone_hash
        self.requires_grad_(False)
        self.eval()

    @property
    def weights_hash(self) -> str:
        """The encoder's."""
        return self._stored_hash

    def forward(self, clips: StoredClips) -> list[MappedFeatures]:
        """tokens (B,T,L,D), and maps as ``neighbour_maps`` makes them, in the type of this model, or autocast's."""
        if not isinstance(clips, StoredClips):
            raise StoreError(
                "pixels came, but this classifier stands on a store of features; save it, and load it with evl.load"
            )
        one = next(iter(clips.tokens.values())).values
        device, dtype = one.device, self._like.dtype
        if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        with torch.no_grad(), without_autocast(device):
            if self.projections is None:
                return [
                    MappedFeatures(
                        clips.tokens[block].unpack(dtype),
                        unpacked_maps(clips.maps[block].unpack(dtype), dtype) if self.needs_maps else (),
                    )
                    for block in self.taps
                ]
            projections = self.in_type(dtype).projections
            needed = {*self.taps, *(tap - 1 for tap in self.taps if self.needs_maps)}
            tokens = {block: clips.tokens[block].unpack(dtype) for block in sorted(needed)}
            return [
                MappedFeatures(
                    tokens[block], self._maps(projections, block, tokens[block - 1]) if self.needs_maps else ()
                )
                for block in self.taps
            ]

    def _maps(self, projections: Projections, block: int, inputs: Tensor) -> list[Tensor]:
        """The block's neighbour maps from its inputs (B,T,L,D); on the CPU a clip at a time, to stay in the cache."""
        grid = self.spec.grid
        maps = empty_maps(*inputs.shape[:2], grid, inputs)
        patches = inputs[:, :, self.spec.num_prefix_tokens :]
        at_once = 1 if inputs.device.type == "cpu" else len(inputs)
        for start in range(0, len(inputs), at_once):
            part = slice(start, start + at_once)
            query, key = projections.queries_keys(block, patches[part].flatten(0, 1), patches_only=True)
            query, key = (x.unflatten(0, (-1, inputs.shape[1])) for x in (query, key))
            fill_maps(maps, part, query, key, grid)
        return maps

    def tap(self, frames: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        raise StoreError("a store of features has no encoder to look at frames with")
