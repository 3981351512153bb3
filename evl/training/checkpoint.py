"""Everything a run needs to go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import torch

from evl.backbones.weights import load_torch_file
from evl.errors import CheckpointError, SaveError
from evl.files import write_atomically
from evl.models import VideoClassifier


def save_checkpoint(
    folder: Path, step: int, model: VideoClassifier, optimizer, scaler, device: torch.device, *, keep_last: int, **more
) -> Path:
    """``step_0000100.pt``: trainable weights, optimizer, scaler, random state, and ``more``. Older ones beyond
    ``keep_last`` are removed after it is safely there. Raises SaveError; older ones then remain."""
    path = folder / f"step_{step:07d}.pt"
    state = {
        "step": step,
        "backbone_hash": model.backbone.weights_hash,
        "model": model.trainable_state(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        },
        **more,
    }
    with write_atomically(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch wraps what the file object raised
            raise SaveError(f"{path} could not be written ({error}); older checkpoints are unchanged") from error
    for old in list_checkpoints(folder)[:-keep_last]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step_*.pt"))


def load_checkpoint(path: Path, model: VideoClassifier, optimizer, scaler, device: torch.device) -> dict:
    """Puts everything back, random state included, and returns what was saved besides. CheckpointError otherwise."""
    try:
        state = load_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it to go on from the one before") from None
    if not isinstance(state, dict) or not {"step", "model", "optimizer", "random"} <= state.keys():
        raise CheckpointError(f"{path}: not a checkpoint of evl")
    if state["backbone_hash"] != model.backbone.weights_hash:
        raise CheckpointError(
            f"{path} was made on other backbone weights ({state['backbone_hash'][:12]}…, here "
            f"{model.backbone.weights_hash[:12]}…)"
        )
    try:
        model.load_trainable_state(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: does not fit this run: {str(error).splitlines()[0]}") from None
    torch.set_rng_state(state["random"]["cpu"])
    if device.type == "cuda" and state["random"]["cuda"] is not None:
        torch.cuda.set_rng_state(state["random"]["cuda"], device)
    return state
