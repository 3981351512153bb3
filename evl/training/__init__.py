"""Training: the loop, one step, checkpoints, the run folder."""

from evl.training.loop import Interrupted, Progress
from evl.training.run import RunResult, train

__all__ = ["Interrupted", "Progress", "RunResult", "train"]
