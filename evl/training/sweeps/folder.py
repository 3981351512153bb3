"""The folder of a sweep."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import yaml

from evl.config import RunConfig
from evl.errors import FinishedError, RunError
from evl.evaluation.picture import drawing
from evl.runtime.files import expand_home, parse_yaml, write_file, write_json, write_table
from evl.runtime.out_folder import Resume, hold_folder
from evl.training.run_folder import RunFolder
from evl.training.sweeps.plot import draw
from evl.training.sweeps.results import SweepResult

_SETTINGS = "sweep.yaml"


class SweepFolder:
    """The folder of a sweep.

    It has ``sweep.yaml`` with the arguments of the sweep, and ``checkpoints/`` until all is done, then ``learners/``,
    ``best/`` and the results. ``run`` is the same folder as a RunFolder.
    """

    def __init__(self, path: str | Path):
        self.path = expand_home(Path(path))
        self.run = RunFolder(path)

    def held(self, resume: Resume) -> AbstractContextManager[bool]:
        """Holds the folder while a sweep works in it (``hold_folder``); gives whether to go on with the sweep there."""
        return hold_folder(self.path, resume, is_begun=lambda: self._is_begun(or_finished=bool(resume)))

    def _is_begun(self, or_finished: bool) -> bool:
        return (self.path / _SETTINGS).is_file() and (or_finished or not self._is_finished)

    @property
    def _is_finished(self) -> bool:
        return (self.path / "sweep.json").is_file()

    def create(self, config: RunConfig, grid: Sequence[str], keep_predictions: bool) -> None:
        """Writes ``sweep.yaml``."""
        content = {"grid": list(grid), "keep_predictions": keep_predictions, "config": config.to_dict()}
        write_file(self.path / _SETTINGS, yaml.safe_dump(content, sort_keys=False))

    def read(self) -> tuple[RunConfig, list[str], bool]:
        """(config, grid, keep_predictions) of the sweep. Raises RunError if there is none."""
        if not (self.path / _SETTINGS).is_file():
            raise RunError(f"{self.path} has no sweep to go on with; start one with another `out`")
        try:
            content = parse_yaml((self.path / _SETTINGS).read_text(encoding="utf-8"))
            grid, keep = [str(setting) for setting in content["grid"]], bool(content["keep_predictions"])
            return RunConfig.from_dict(content["config"]), grid, keep
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / _SETTINGS}: missing or damaged ({error}); start a new sweep") from None

    def refuse_finished(self) -> None:
        """Raises FinishedError if all is done. Checkpoints that a process did not come to remove are removed."""
        if self._is_finished:
            self.finish()
            raise FinishedError(f"{self.path} is finished already; start one with another `out`")

    def remove_if_unused(self, *, has_learned: bool) -> None:
        """Removes the folder if nothing was learned, so that the same command can begin again."""
        if has_learned:
            return
        with contextlib.suppress(OSError):
            for name in (_SETTINGS, "damaged.csv"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.run.checkpoints, ignore_errors=True)

    def finish(self) -> None:
        """Removes the checkpoints, after every learner is saved."""
        shutil.rmtree(self.run.checkpoints, ignore_errors=True)


def write_sweep(out: Path, result: SweepResult) -> None:
    """Writes ``sweep.json``, ``sweep.csv``, ``sweep.png``, and ``damaged.csv`` if videos are damaged."""
    if result.damaged:
        RunFolder(out).write_damaged(result.damaged)
    names = list(result.rows[0])
    write_table(out / "sweep.csv", [names, *([row[name] for name in names] for row in result.rows)])
    with drawing(out / "sweep.png"):
        draw(out / "sweep.png", result)
    write_json(out / "sweep.json", result.to_dict())  # last: a sweep with this file is finished
