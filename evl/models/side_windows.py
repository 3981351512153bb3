"""Windows of a long video → vectors of a side network: each frame's tokens are read once for all windows that have it.

Reading, z = Linear(LayerNorm(Y)), is the only part of a layer that depends on one frame alone (docs/side.md). All that
follows depends on the whole window, so it is done for each window, as for a clip. The windows go through the layers one
by one: the state of one is small enough for the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evl.models.kept import Kept
from evl.models.side import SideDecoder
from evl.models.windows import WindowFeatures
from evl.runtime.precision import without_autocast


class SideWindowDecoder:
    """A side network for windows that share frames: WindowFeatures of a start and M blocks -> (B,d), without gradients.

    The result is that of the network for ``clips()`` of each block. Between calls it keeps what it read of the frames
    of the last call.
    """

    def __init__(self, decoder: SideDecoder):
        self.decoder = decoder
        self.kept = Kept()

    @staticmethod
    def can_read(decoder: torch.nn.Module) -> bool:
        return type(decoder) is SideDecoder

    def __call__(self, features: Sequence[WindowFeatures]) -> Tensor:
        one = features[0]
        with without_autocast(one.tokens.device), torch.no_grad():
            wanted = one.numbers[one.places]  # (B,T)
            numbers = np.unique(wanted)
            read = self.kept.of(numbers[:, None], lambda new: self._read(features, new[:, 0]))
            places = np.searchsorted(numbers, wanted)
            at_once = len(places) if one.tokens.device.type != "cpu" else 1
            parts = [places[start : start + at_once] for start in range(0, len(places), at_once)]
            return torch.cat([self.decoder.read(self._state(read, part)) for part in parts])

    def _read(self, features: Sequence[WindowFeatures], numbers: np.ndarray) -> list[Tensor]:
        """z (n,L,d) of each tapped block, for frames with these numbers."""
        order = np.argsort(features[0].numbers)
        rows = order[np.searchsorted(features[0].numbers, numbers, sorter=order)][None]
        return [one[0] for one in self.decoder.read_taps([frames_of(one.tokens, rows) for one in features])]

    def _state(self, read: Sequence[Tensor], places: np.ndarray) -> Tensor:
        """The last state (B,T,P,d) of windows whose frames are at ``places`` (B,T) of what was read."""
        return self.decoder.mix(frames_of(one, places) for one in read)[0]


def frames_of(part: Tensor, places: np.ndarray) -> Tensor:
    """part (F,L,d) -> (B,T,L,d): a view for one window whose frames are equally far apart, else a copy."""
    if len(places) == 1:
        steps = np.diff(places[0])
        if not len(steps) or ((steps == steps[0]).all() and steps[0] > 0):
            return part[places[0, 0] : places[0, -1] + 1 : steps[0] if len(steps) else 1][None]
    return part[torch.from_numpy(places).to(part.device)]
