"""The folder of a run: its settings, its videos, and what was measured."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from evl._version import __version__
from evl.config import RunConfig
from evl.data.manifests.manifest import read_class_names, read_manifest, write_manifest, write_missing
from evl.errors import DataError, RunError
from evl.runtime.files import (
    append_json,
    expand_home,
    make_folder,
    read_json_lines,
    remove_file,
    write_file,
    write_json,
    write_table,
)
from evl.runtime.out_folder import Resume, hold_folder
from evl.store.description import StoreDescription
from evl.types import Sample

FEATURES = "features.json"
# files of ``create``; it writes the first one last, so a folder with that file is complete
_MADE = ("config.yaml", "environment.json", "class_names.txt", "train.csv", "val.csv", "missing.csv", FEATURES)
_MEASURED = ("metrics.jsonl", "damaged.csv", "best", "model.json")


class RunFolder:
    """The folder of a run.

    It has ``config.yaml``, ``environment.json``, ``class_names.txt``, ``train.csv``, ``val.csv``, ``metrics.jsonl``,
    ``checkpoints/``, ``tensorboard/``, and at the end the model and its evaluation. Lists of missing and damaged videos
    are ``missing.csv`` and ``damaged.csv``. A run from a store has ``features.json``.
    """

    def __init__(self, path: str | Path):
        self.path = expand_home(Path(path))
        self.checkpoints = self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def held(self, resume: Resume) -> AbstractContextManager[bool]:
        """Holds the folder while a run works in it (``hold_folder``); gives whether to go on with the run there."""
        return hold_folder(self.path, resume, is_begun=lambda: self.exists, made=_MADE)

    def create(
        self,
        config: RunConfig,
        class_names: Sequence[str],
        train: Sequence[Sample],
        val: Sequence[Sample],
        missing: Mapping[str, Sequence[Sample]],
        features: StoreDescription | None = None,
    ) -> None:
        """Makes the folder with the files that describe the run. Raises SaveError if it cannot be made.

        ``missing``: for each split, videos that are listed but do not exist. ``features``: of the store that it reads.
        """
        make_folder(self.path)  # first, so that an error has this name, not that of a file in it
        write_file(self.path / "class_names.txt", "".join(f"{name}\n" for name in class_names))
        write_manifest(self.path / "train.csv", train)
        write_manifest(self.path / "val.csv", val)
        if missing:
            write_missing(self.path / "missing.csv", missing)
        if features is not None:
            content = {"hash": features.fingerprint_hash, "fingerprint": features.fingerprint}
            write_json(self.path / FEATURES, content)
        write_json(self.path / "environment.json", environment())
        write_file(self.path / "config.yaml", config.to_yaml())  # last: a folder with this file is complete

    def write_moved(self, config: RunConfig, train: Sequence[Sample], val: Sequence[Sample]) -> None:
        """Writes the new paths of the same videos, after they were moved."""
        write_manifest(self.path / "train.csv", train)
        write_manifest(self.path / "val.csv", val)
        write_file(self.path / "config.yaml", config.to_yaml())

    def remove_if_unused(self) -> None:
        """Removes the files of ``create`` if no step was done, so that the same command can begin again.

        A folder with measurements, checkpoints or a model stays as it is. Files of other programs always stay.
        """
        if any(self.checkpoints.glob("step_*.pt")) or any((self.path / name).exists() for name in _MEASURED):
            return
        with contextlib.suppress(OSError):
            for name in _MADE:
                (self.path / name).unlink(missing_ok=True)
            if self.checkpoints.is_dir():
                self.checkpoints.rmdir()

    def read(self) -> tuple[RunConfig, tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
        """(config, class names, training samples, validation samples). Raises RunError if there is no run."""
        if not self.exists:
            raise RunError(f"{self.path}: no run to resume here (no config.yaml)")
        names = read_class_names(self.path / "class_names.txt")
        return RunConfig.from_yaml(self.path / "config.yaml"), names, self.samples("train"), self.samples("val")

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The videos on which this run trains (``train``) or is validated (``val``); () if there are none."""
        names = read_class_names(self.path / "class_names.txt")
        if not (self.path / f"{split}.csv").is_file():
            raise DataError(f"{self.path}: a run has the splits train and val, not {split!r}")
        try:
            return read_manifest(self.path / f"{split}.csv", class_names=names).samples
        except DataError as error:
            if "no videos found" in str(error):
                return ()
            raise

    def fingerprint(self) -> dict[str, object]:
        """The fingerprint of the features with which this run was begun. Raises RunError if it cannot be read."""
        try:
            content = json.loads((self.path / FEATURES).read_text(encoding="utf-8"))
            fingerprint = content["fingerprint"]
            if not isinstance(fingerprint, dict):
                raise TypeError("the fingerprint is no list of names")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"{self.path / FEATURES}: missing or damaged ({error}), so the features that this run was begun with "
                "are unknown; start a new run in another folder"
            ) from None
        return fingerprint

    def log(self, values: dict) -> None:
        """Appends a line to ``metrics.jsonl``."""
        append_json(self.path / "metrics.jsonl", values)

    def curve(self) -> tuple[tuple[int, float, float], ...]:
        """(step, mean training loss, percent of hits) of every report in ``metrics.jsonl``."""
        points: list[tuple[int, float, float]] = []
        for line in self._logged():
            step, loss, top1 = (line.get(name) for name in ("step", "loss", "train_top1"))
            if type(loss) is type(top1) is float and step > (points[-1][0] if points else 0):
                points.append((step, loss, top1))
        return tuple(points)

    def forget_after(self, step: int) -> None:
        """Removes the lines of ``metrics.jsonl`` that a run resumed after ``step`` will write again."""
        file = self.path / "metrics.jsonl"
        if file.exists():
            lines = [line for line in self._logged() if "final" not in line and line["step"] <= step]
            write_file(file, "".join(json.dumps(line) + "\n" for line in lines))

    def _logged(self) -> list[dict]:
        """The lines of ``metrics.jsonl`` that have a step; damaged lines are left out."""
        lines = read_json_lines(self.path / "metrics.jsonl")
        return [line for line in lines if type(line.get("step")) is int and line["step"].bit_length() < 64]

    def write_damaged(self, damaged: dict[str, str]) -> None:
        """Writes ``damaged.csv``, or removes it if no video is damaged any more."""
        if not damaged:
            remove_file(self.path / "damaged.csv")
            return
        write_table(self.path / "damaged.csv", [("path", "reason"), *sorted(damaged.items())])


def environment() -> dict:
    """Versions of packages and facts about the machine, which help to get the same numbers again."""
    packages = ("torch", "torchvision", "timm", "av", "numpy", "pillow", "safetensors")
    return {
        "evl": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": sys.argv,
    }
