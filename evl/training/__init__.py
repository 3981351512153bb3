"""Training: the loop, learners, checkpoints, and the folder of a run."""

from typing import TYPE_CHECKING

from evl.runtime.import_path import first_used

# imported when they are first used, so that importing ``evl.training.learner`` does not import readers of videos
_HOMES = {
    "Interrupted": "evl.training.loop",
    "Progress": "evl.runtime.progress",
    "RunResult": "evl.training.run",
    "RunTime": "evl.training.pace",
    "train": "evl.training.run",
}
__all__ = ["Interrupted", "Progress", "RunResult", "RunTime", "train"]

if TYPE_CHECKING:
    from evl.runtime.progress import Progress
    from evl.training.loop import Interrupted
    from evl.training.pace import RunTime
    from evl.training.run import RunResult, train


__getattr__ = first_used(__name__, _HOMES)
