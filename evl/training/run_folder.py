"""The folder of a run: what it was told, what it saw, what it measured."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from evl._version import __version__
from evl.config import RunConfig
from evl.data.manifests.manifest import read_class_names, read_manifest, write_manifest
from evl.errors import DataError, RunError
from evl.runtime.files import (
    append_json,
    expand_home,
    make_folder,
    read_json_lines,
    refuse_used,
    write_file,
    write_json,
    write_table,
)
from evl.store.description import StoreDescription
from evl.types import Sample

FEATURES = "features.json"
# by ``create``; the first says that the folder is complete
_MADE = ("config.yaml", "environment.json", "class_names.txt", "train.csv", "val.csv", "missing.csv", FEATURES)
_MEASURED = ("metrics.jsonl", "damaged.csv", "best", "model.json")


class RunFolder:
    """``config.yaml``, ``environment.json``, ``class_names.txt``, ``train.csv``, ``val.csv``, ``metrics.jsonl``,
    ``missing.csv`` and ``damaged.csv`` where there are some, ``features.json`` of a run from a store,
    ``checkpoints/``, ``tensorboard/``, and at the end the model and its evaluation."""

    def __init__(self, path: str | Path):
        self.path = expand_home(Path(path))
        self.checkpoints = self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def create(
        self,
        config: RunConfig,
        class_names: Sequence[str],
        train: Sequence[Sample],
        val: Sequence[Sample],
        missing: Mapping[str, Sequence[Sample]],
        features: StoreDescription | None = None,
    ) -> None:
        """Makes the folder. ``missing``: by split, listed videos that are not there; ``missing.csv`` if there are some.
        ``features``: of the store that the run reads; ``features.json`` has its fingerprint.

        Raises SaveError if it cannot be made, RunError if it is there already with something in it.
        """
        refuse_used(self.path, can_resume=self.exists)
        make_folder(self.path)  # by its own name in an error
        make_folder(self.checkpoints)
        write_file(self.path / "class_names.txt", "".join(f"{name}\n" for name in class_names))
        write_manifest(self.path / "train.csv", train)
        write_manifest(self.path / "val.csv", val)
        if missing:
            rows = [(sample.path, sample.label, split) for split, group in missing.items() for sample in group]
            write_table(self.path / "missing.csv", [("path", "label", "split"), *rows])
        if features is not None:
            content = {"hash": features.fingerprint_hash, "fingerprint": features.fingerprint}
            write_json(self.path / FEATURES, content)
        write_json(self.path / "environment.json", environment())
        write_file(self.path / "config.yaml", config.to_yaml())  # last: its presence says that the folder is complete

    def write_moved(self, config: RunConfig, train: Sequence[Sample], val: Sequence[Sample]) -> None:
        """The same videos, where they lie now."""
        write_manifest(self.path / "train.csv", train)
        write_manifest(self.path / "val.csv", val)
        write_file(self.path / "config.yaml", config.to_yaml())

    def remove_if_unused(self) -> None:
        """Takes back what ``create`` made, where no step was done: the same command can then begin again. What a run
        has measured or saved stays, and so does what is not of this class."""
        if any(self.checkpoints.glob("step_*.pt")) or any((self.path / name).exists() for name in _MEASURED):
            return
        with contextlib.suppress(OSError):
            for name in _MADE:
                (self.path / name).unlink(missing_ok=True)
            self.checkpoints.rmdir()
            self.path.rmdir()

    def read(self) -> tuple[RunConfig, tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
        if not self.exists:
            raise RunError(f"{self.path}: no run to resume here (no config.yaml)")
        names = read_class_names(self.path / "class_names.txt")
        return RunConfig.from_yaml(self.path / "config.yaml"), names, self.samples("train"), self.samples("val")

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The videos this run trains (``train``) or validates (``val``) on; () if there are none."""
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
        """Of the features that this run from a store was begun with. Raises RunError where it cannot be read."""
        try:
            content = json.loads((self.path / FEATURES).read_text(encoding="utf-8"))
            fingerprint = content["fingerprint"]
            if not isinstance(fingerprint, dict):
                raise TypeError("the fingerprint is no list of names")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"{self.path / FEATURES}: missing or damaged, so that nobody knows which features this run was begun "
                f"with ({error}); start a new run in another folder"
            ) from None
        return fingerprint

    def log(self, values: dict) -> None:
        """A line of ``metrics.jsonl``."""
        append_json(self.path / "metrics.jsonl", values)

    def curve(self) -> tuple[tuple[int, float, float], ...]:
        """(step, mean loss, percent of hits) of every report in ``metrics.jsonl``."""
        lines = read_json_lines(self.path / "metrics.jsonl")
        return tuple((one["step"], one["loss"], one["train_top1"]) for one in lines if "train_top1" in one)

    def forget_after(self, step: int) -> None:
        """Drops lines of ``metrics.jsonl`` that a resumed run will write again."""
        file = self.path / "metrics.jsonl"
        if file.exists():
            lines = [
                one for one in read_json_lines(file) if "final" not in one and one.get("step", sys.maxsize) <= step
            ]
            write_file(file, "".join(json.dumps(one) + "\n" for one in lines))

    def write_damaged(self, damaged: dict[str, str]) -> None:
        write_table(self.path / "damaged.csv", [("path", "reason"), *sorted(damaged.items())])


def environment() -> dict:
    """Versions and machine, for whoever wants the same numbers again."""
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
