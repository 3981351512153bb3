"""How long a run will take, without starting it for good."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from evl.config import RunConfig
from evl.errors import ConfigError
from evl.runtime.distributed import join_world
from evl.training.pace import RunTime
from evl.training.run import train


class _Known(Exception):
    def __init__(self, found: RunTime):
        self.found = found


def estimate_training(config: RunConfig, *, device: str | None = None) -> RunTime:
    """How long ``train(config, out)`` will take: its first steps are done, for some seconds up to about a minute, and
    thrown away; of a run that is shorter, all. Nothing is written but in a temporary folder, which is removed.

    Raises what ``train`` does, and ConfigError under torchrun.
    """
    with join_world(device) as world:
        if world.size > 1:
            raise ConfigError("an estimate is made in one process: leave torchrun out")

    def stop(found: RunTime) -> None:
        raise _Known(found)

    with tempfile.TemporaryDirectory(prefix="evl-estimate-") as folder:
        started = time.monotonic()
        try:
            train(config, Path(folder) / "run", device=device, on_pace=stop)
        except _Known as known:
            return known.found
        seconds = time.monotonic() - started
        steps = RunConfig.from_yaml(Path(folder) / "run" / "config.yaml").training.steps
        return RunTime(steps, seconds / steps, measured=True)
