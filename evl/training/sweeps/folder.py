"""The folder of a sweep while it is made."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from evl.config import RunConfig
from evl.errors import RunError
from evl.runtime.files import expand_home, make_folder, refuse_used, write_file, write_json, write_table
from evl.training.run_folder import RunFolder
from evl.training.sweeps.plot import draw
from evl.training.sweeps.results import SweepResult

_SETTINGS = "sweep.yaml"


class SweepFolder:
    """``sweep.yaml`` (what was asked for), ``checkpoints/`` until all is done, then ``heads/``, ``best/`` and the
    results. ``run``: the same folder as the training sees it."""

    def __init__(self, path: str | Path):
        self.path = expand_home(Path(path))
        self.run = RunFolder(path)

    def refuse_used(self) -> None:
        """RunError where something else is there."""
        refuse_used(self.path, can_resume=self._is_begun)

    @property
    def _is_begun(self) -> bool:
        return (self.path / _SETTINGS).is_file() and not (self.path / "sweep.json").is_file()

    def create(self, config: RunConfig, grid: Sequence[str], keep_predictions: bool) -> None:
        make_folder(self.path)  # by its own name in an error
        make_folder(self.run.checkpoints)
        content = {"grid": list(grid), "keep_predictions": keep_predictions, "config": config.to_dict()}
        write_file(self.path / _SETTINGS, yaml.safe_dump(content, sort_keys=False))

    def read(self) -> tuple[RunConfig, list[str], bool]:
        """What was asked for. Raises RunError where there is nothing to go on with."""
        if not self._is_begun:
            done = "is finished already" if (self.path / "sweep.json").is_file() else "has no sweep to go on with"
            raise RunError(f"{self.path} {done}; start one with evl sweep … --out ANOTHER")
        try:
            content = yaml.safe_load((self.path / _SETTINGS).read_text(encoding="utf-8"))
            grid, keep = [str(one) for one in content["grid"]], bool(content["keep_predictions"])
            return RunConfig.from_dict(content["config"]), grid, keep
        except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise RunError(f"{self.path / _SETTINGS}: missing or damaged ({error}); start the sweep anew") from None

    def remove_if_unused(self, *, has_learned: bool) -> None:
        """Takes back what was made here, where nothing was learned: the same command can then begin again."""
        if has_learned:
            return
        with contextlib.suppress(OSError):
            for name in (_SETTINGS, "damaged.csv"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.run.checkpoints, ignore_errors=True)
            self.path.rmdir()

    def finish(self) -> None:
        """The checkpoints are not needed any more: every head is saved."""
        shutil.rmtree(self.run.checkpoints, ignore_errors=True)


def write_sweep(out: Path, result: SweepResult) -> None:
    """``sweep.json``, ``sweep.csv``, ``sweep.png``, and ``damaged.csv`` where there are some."""
    if result.damaged:
        RunFolder(out).write_damaged(result.damaged)
    names = list(result.rows[0])
    write_table(out / "sweep.csv", [names, *([row[name] for name in names] for row in result.rows)])
    draw(out / "sweep.png", result)
    write_json(out / "sweep.json", result.to_dict())  # last: its presence says that all is there
