"""What every part of a round is given, and how it compares numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # evl itself, and tests/ for golden files and made videos

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Row = dict[str, object]


@dataclass(frozen=True)
class Settings:
    """``dry``: everything tiny, to see that it runs. ``work``: a folder that all parts of a round share."""

    device: torch.device
    work: Path
    dry: bool = False

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)


def exact_float32() -> None:
    """Products and convolutions of float32 in float32: TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def difference(got: Tensor, wanted: Tensor, floor: float = 0.0) -> float:
    """‖got − wanted‖ / ‖wanted‖ in double precision; ``floor``: the least to divide by. Infinite where not finite."""
    got, wanted = (x.detach().double().cpu() for x in (got, wanted))
    if got.shape != wanted.shape or not got.isfinite().all():
        return float("inf")
    size = max(wanted.norm().item(), floor)
    return (got - wanted).norm().item() / size if size else float((got != 0).any())


def compared(what: str, error: float, allowed: float, **more: object) -> Row:
    return {"what": what, **more, "difference": error, "allowed": allowed, "ok": error <= allowed}


def attempt(what: str, check: Callable[[], Iterator[Row]], **more: object) -> Iterator[Row]:
    """The rows of ``check``; where it raises, a row that says so, and the next check can run."""
    try:
        yield from check()
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        yield {"what": what, **more, "ok": False, "problem": text[:300]}
