"""What was made of frames for one batch of windows and is used again for the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Kept:
    """Tensors by keys: those of the last call are used again, and only new ones are made."""

    def __init__(self):
        self.keys: list[tuple[int, ...]] = []
        self.parts: list[Tensor] = []

    def of(self, wanted: np.ndarray, make: Callable[[np.ndarray], list[Tensor]]) -> list[Tensor]:
        """The tensors (n,…) of the keys (n,k). ``make(keys)`` returns those of new ones."""
        known = {key: place for place, key in enumerate(self.keys)}
        keys = list(map(tuple, wanted.tolist()))
        old = [place for place, key in enumerate(keys) if key in known]
        new = [place for place, key in enumerate(keys) if key not in known]
        made = make(wanted[new]) if new else []
        if old:
            rows = [known[keys[place]] for place in old]
            device = self.parts[0].device
            order = torch.tensor([*old, *new], device=device).argsort()
            is_sorted = old + new == list(range(len(keys)))
            parts = []
            for place, part in enumerate(self.parts):
                part = torch.cat([part[rows], made[place]]) if new else part[rows]
                parts.append(part if is_sorted else part[order])
            made = parts
        self.keys, self.parts = keys, made
        return made
