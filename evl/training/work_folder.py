"""The folder of work that trains many learners: a sweep, or few-shot runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from evl.config import RunConfig
from evl.errors import RunError
from evl.runtime.files import expand_home, parse_yaml, write_file
from evl.runtime.out_folder import Resume, hold_folder


class WorkFolder:
    """A folder with the arguments of the work in the file ``settings`` (YAML), and at the end ``results`` (JSON)."""

    def __init__(self, path: str | Path, settings: str, results: str):
        self.path = expand_home(Path(path))
        self.settings, self.results = self.path / settings, self.path / results

    @property
    def is_finished(self) -> bool:
        return self.results.is_file()

    def held(self, resume: Resume) -> AbstractContextManager[bool]:
        """Holds the folder during the work (``hold_folder``); gives whether to go on with what was begun there."""

        def is_begun() -> bool:
            return self.settings.is_file() and (bool(resume) or not self.is_finished)

        return hold_folder(self.path, resume, is_begun=is_begun)

    def create(self, config: RunConfig, **arguments: Any) -> None:
        """Writes the arguments."""
        write_file(self.settings, yaml.safe_dump({**arguments, "config": config.to_dict()}, sort_keys=False))

    def read(self, **kinds: Any) -> tuple:
        """(config, the arguments in the order of ``kinds``: name → type). Raises RunError if there are none."""
        if not self.settings.is_file():
            raise RunError(f"{self.path} has nothing to go on with; start anew, with another `out`")
        try:
            content = parse_yaml(self.settings.read_text(encoding="utf-8"))
            values = [TypeAdapter(kind).validate_python(content[name]) for name, kind in kinds.items()]
            return RunConfig.from_dict(content["config"]), *values
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.settings}: missing or damaged ({error}); start anew, with another `out`") from None
