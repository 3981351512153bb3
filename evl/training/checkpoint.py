"""Checkpoints: all that a training needs to go on exactly where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import torch

from evl.backbones.weights.files import load_torch_file
from evl.errors import CheckpointError, SaveError
from evl.runtime.distributed import World
from evl.runtime.files import write_atomically
from evl.training.learners import Learners


def save_checkpoint(folder: Path, step: int, learners: Learners, *, keep_last: int, **more) -> Path:
    """Writes ``step_0000100.pt`` with the state of every learner and ``more``, and returns its path.

    Then all but the last ``keep_last`` checkpoints are removed. Raises SaveError if the file cannot be written; then
    the older ones remain.
    """
    path = folder / f"step_{step:07d}.pt"
    state = {
        "step": step,
        "backbone_hash": learners.all[0].model.encoder.weights_hash,
        "learners": [learner.state() for learner in learners.all],
        **more,
    }
    with write_atomically(path) as file:
        watched = _Watched(file)
        try:
            torch.save(state, watched)
        except RuntimeError as error:
            raise watched.problem or SaveError(
                f"{path} could not be written ({error}); older checkpoints are unchanged"
            ) from error
    for old in list_checkpoints(folder)[:-keep_last]:
        old.unlink(missing_ok=True)
    return path


class _Watched:
    """A file for ``torch.save``, which reports an error of the file as "unexpected pos": ``problem`` is what the system
    said, such as "No space left on device"."""

    def __init__(self, file: IO[bytes]):
        self.file, self.problem = file, None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.problem = error
            raise

    def flush(self) -> None:
        self.file.flush()


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step_*.pt"))


def load_checkpoint(path: Path, learners: Learners, world: World) -> dict:
    """Loads the state of every learner, and returns the whole content of the checkpoint.

    Raises CheckpointError if the file is damaged or does not fit the learners.
    """
    try:
        state = load_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it to go on from the checkpoint before") from None
    if not isinstance(state, dict) or not {"step", "learners", "backbone_hash"} <= state.keys():
        raise CheckpointError(f"{path}: not a checkpoint of evl")
    own = learners.all[0].model.encoder.weights_hash
    if state["backbone_hash"] != own:
        raise CheckpointError(
            f"{path} was made on other backbone weights ({state['backbone_hash'][:12]}…, here {own[:12]}…)"
        )
    if len(state["learners"]) != len(learners.all):
        raise CheckpointError(f"{path}: has {len(state['learners'])} learners, not {len(learners.all)}")
    try:
        for learner, saved in zip(learners.all, state["learners"], strict=True):
            learner.load_state(saved, state["step"], world)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: does not fit this run ({str(error).splitlines()[0]})") from None
    return state
