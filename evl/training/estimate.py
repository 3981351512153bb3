"""Measures how long a run will take."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from evl.config import RunConfig
from evl.errors import ConfigError
from evl.runtime.distributed import join_world
from evl.training.pace import RunTime
from evl.training.run import train


class _Measured(Exception):
    def __init__(self, run_time: RunTime):
        self.run_time = run_time


def estimate_training(config: RunConfig, *, device: str | None = None) -> RunTime:
    """How long ``train(config, out)`` will take.

    The first steps are done and thrown away, which takes some seconds to about a minute. A shorter run is done whole.
    Files are written to a temporary folder only, which is removed.

    Raises the errors of ``train``, and ConfigError under torchrun.
    """
    with join_world(device) as world:
        if world.size > 1:
            raise ConfigError("an estimate is made in one process: leave torchrun out")

    def stop(run_time: RunTime) -> None:
        raise _Measured(run_time)

    with tempfile.TemporaryDirectory(prefix="evl-estimate-") as folder:
        started = time.monotonic()
        try:
            train(config, Path(folder) / "run", device=device, on_pace=stop)
        except _Measured as measured:
            return measured.run_time
        seconds = time.monotonic() - started
        steps = RunConfig.from_yaml(Path(folder) / "run" / "config.yaml").training.steps
        return RunTime(steps, seconds / steps, measured=True)
