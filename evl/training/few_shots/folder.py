"""The folder of few-shot runs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from evl.config import RunConfig
from evl.errors import RunError
from evl.runtime.files import append_json, expand_home, parse_yaml, read_json_lines, write_file
from evl.runtime.out_folder import Resume, hold_folder
from evl.training.few_shots.report import Shots

_SETTINGS, _ROWS = "few_shot.yaml", "rows.jsonl"


class FewShotFolder:
    """The folder of few-shot runs.

    It has ``few_shot.yaml`` with the arguments, ``rows.jsonl`` with a line for each finished K, and at the end
    ``shots.json`` and ``shots.png``.
    """

    def __init__(self, path: str | Path):
        self.path = expand_home(Path(path))

    def held(self, resume: Resume) -> AbstractContextManager[bool]:
        """Holds the folder while runs are made in it (``hold_folder``); gives whether to go on with those there."""
        return hold_folder(self.path, resume, is_begun=lambda: self._is_begun(resume == "auto"))

    def _is_begun(self, or_finished: bool) -> bool:
        return (self.path / _SETTINGS).is_file() and (or_finished or not (self.path / "shots.json").is_file())

    def create(self, config: RunConfig, shots: Sequence[int], draws: int, keep_runs: bool) -> None:
        """Writes ``few_shot.yaml``."""
        content = {"shots": list(shots), "draws": draws, "keep_runs": keep_runs, "config": config.to_dict()}
        write_file(self.path / _SETTINGS, yaml.safe_dump(content, sort_keys=False))

    def read(self, or_finished: bool) -> tuple[RunConfig, tuple[int, ...], int, bool]:
        """(config, shots, draws, keep_runs) of these runs. Raises RunError if there are none, or only finished ones
        without ``or_finished``."""
        if not self._is_begun(or_finished):
            done = "is finished already" if (self.path / "shots.json").is_file() else "has no runs to go on with"
            raise RunError(f"{self.path} {done}; start anew, with another `out`")
        try:
            content = parse_yaml((self.path / _SETTINGS).read_text(encoding="utf-8"))
            shots = tuple(int(k) for k in content["shots"])
            return RunConfig.from_dict(content["config"]), shots, int(content["draws"]), bool(content["keep_runs"])
        except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise RunError(
                f"{self.path / _SETTINGS}: missing or damaged ({error}); start new runs in another folder"
            ) from None

    def add(self, row: Shots) -> None:
        """Appends the row of a finished K."""
        append_json(self.path / _ROWS, asdict(row))

    def rows(self) -> list[Shots]:
        """The rows of the finished K. A line that was cut off is left out."""
        rows = []
        for values in read_json_lines(self.path / _ROWS):
            with contextlib.suppress(ValidationError):
                rows.append(TypeAdapter(Shots).validate_python(values))
        return rows
