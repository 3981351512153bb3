"""Shared by tests: where golden files lie, comparison, tiny backbones, made videos."""

from __future__ import annotations

from pathlib import Path

import torch

GOLDEN = Path(__file__).parent / "golden"


def assert_close(got, wanted, *, relative=1e-5, floor=0.0):
    """Largest difference within ``relative`` of the largest wanted value (or within ``floor``)."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} != {tuple(wanted.shape)}"
    allowed = max(relative * wanted.abs().max().item(), float(floor))
    difference = (got - wanted).abs().max().item()
    assert difference <= allowed, f"differs by {difference:.3g}, allowed {allowed:.3g}"
