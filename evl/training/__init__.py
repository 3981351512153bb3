"""Training: the loop, one step, checkpoints, the run folder."""

from importlib import import_module
from typing import TYPE_CHECKING

# imported when they are first used, so that ``evl.training.optim`` alone needs no reader of videos
_HOMES = {
    "Interrupted": "evl.training.loop",
    "Progress": "evl.training.loop",
    "RunResult": "evl.training.run",
    "train": "evl.training.run",
}
__all__ = ["Interrupted", "Progress", "RunResult", "train"]

if TYPE_CHECKING:
    from evl.training.loop import Interrupted, Progress
    from evl.training.run import RunResult, train


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'evl.training' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
