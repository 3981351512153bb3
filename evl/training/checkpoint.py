"""Checkpoints: all that a training needs to go on exactly where it stopped."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import IO, Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict

from evl.backbones.weights.files import load_torch_file
from evl.errors import CheckpointError, SaveError
from evl.runtime.distributed import World
from evl.runtime.files import write_atomically
from evl.training.learner import Learner
from evl.training.learners import Learners

log = logging.getLogger("evl")


def save_checkpoint(folder: Path, step: int, learners: Learners, *, keep_last: int, **more) -> Path:
    """Writes ``step_0000100.pt`` with the state of every learner and ``more``, and returns its path.

    Then ``remove_old`` is called. Raises SaveError if the file cannot be written; then
    the older ones remain.
    """
    path = folder / _name(step)
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
    remove_old(folder, keep_last)
    return path


def remove_old(folder: Path, keep_last: int) -> None:
    """Removes all but the last ``keep_last`` checkpoints. One that cannot be removed is a warning."""
    for old in list_checkpoints(folder)[:-keep_last]:
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s is an old checkpoint, but could not be removed (%s)", old, error.strerror or error)


def _name(step: int) -> str:
    return f"step_{step:07d}.pt"


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

    Everything in the file is compared with the learners before anything is put back. Raises CheckpointError if the
    file is damaged or does not fit the learners; then no learner has changed.
    """
    try:
        content = load_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_REMOVE}") from None
    try:
        state = _checked(content, path, learners)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(_shown, problem["loc"]))
        raise CheckpointError(f"{path}: not a checkpoint of evl ({where}: {problem['msg']}); {_REMOVE}") from None
    except _Unfit as error:
        raise CheckpointError(f"{path}: does not fit this run ({error}); {_REMOVE}") from None
    for learner, saved in zip(learners.all, state["learners"], strict=True):
        learner.load_state(saved, state["step"], world)
    return state


_REMOVE = "remove it to go on from the checkpoint before"
_EXACT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[_Finite, Field(ge=0)]
_Steps = Annotated[int, Field(ge=1)]


class _Learner(TypedDict):
    """What ``Learner.state`` returns, without the shapes of its tensors."""

    __pydantic_config__ = _EXACT
    name: str
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random: list[Tensor]
    since: Tensor
    seen: Tensor
    curve: list[tuple[_Steps, _NotNegative, float, Annotated[float, Field(ge=0, le=100)]]]
    problem: str | None
    seconds: _NotNegative


class _Checkpoint(TypedDict):
    """What ``save_checkpoint`` writes. ``best`` is infinite before the first validation."""

    __pydantic_config__ = _EXACT
    step: _Steps
    backbone_hash: str
    learners: list[_Learner]
    best: float
    selected: str | None
    damaged: dict[str, str]


class _Unfit(Exception):
    """Why a value of a checkpoint does not fit the run."""


def _checked(content: object, path: Path, learners: Learners) -> dict:
    """The content, with every tensor copied into memory of the expected shape.

    Raises ValidationError for fields that are missing or of another type, _Unfit for values that this run cannot have,
    CheckpointError for another encoder.
    """
    state, first = TypeAdapter(_Checkpoint).validate_python(content), learners.all[0]
    own, steps = first.model.encoder.weights_hash, first.config.training.steps
    if state["backbone_hash"] != own:
        raise CheckpointError(
            f"{path} was made on other backbone weights ({state['backbone_hash'][:12]!a}…, here {own[:12]}…)"
        )
    _require(path.name == _name(state["step"]), f"it is of step {state['step']}, which is not in its name")
    _require(state["step"] <= steps, f"it is of step {state['step']}, but the run has {steps} steps")
    _require(not math.isnan(state["best"]), "the best score is not a number")
    names = [saved["name"] for saved in state["learners"]], [learner.name for learner in learners.all]
    _require(len(names[0]) == len(names[1]), f"it has {len(names[0])} learners, not {len(names[1])}")
    _require(names[0] == names[1], "its learners have other names")
    many = len(learners.all) > 1
    fitted = [_fitted_learner(*pair, state["step"], many) for pair in zip(state["learners"], learners.all, strict=True)]
    return {**state, "learners": fitted}


def _fitted_learner(saved: dict, learner: Learner, step: int, many: bool) -> dict:
    """``saved`` with its tensors in the form that this learner needs. Raises _Unfit."""
    own, state = learner.state(), dict(saved)
    moments = saved["optimizer"].get("state")
    if moments != {}:  # it is empty before the first clip
        count = torch.zeros((), dtype=torch.float32)
        parameters = [one for group in learner.optimizer.param_groups for one in group["params"]]
        form = {index: {"step": count, "exp_avg": p, "exp_avg_sq": p} for index, p in enumerate(parameters)}
        moments = _fitted(moments, form, "optimizer.state")
    state["optimizer"] = {"state": moments, "param_groups": own["optimizer"]["param_groups"]}
    for name in ("model", "scaler", "since", "seen"):
        state[name] = _fitted(saved[name], own[name], name)
    if len(saved["random"]) == len(own["random"]):  # a run on another kind of device begins new random numbers
        state["random"] = _fitted(saved["random"], own["random"], "random")
        for device, random in zip(learner.random.devices, state["random"], strict=True):
            try:
                torch.Generator(device).set_state(random)
            except RuntimeError as error:
                raise _Unfit(f"random: {str(error).splitlines()[0]}") from None
            if torch.device(device).type == "cpu":
                _refuse_to_read_past_the_end(random)
    counts = torch.stack([state["seen"], *state["since"][1:]])
    _require((counts.isfinite() & (counts >= 0)).all(), "counts of clips are negative or not finite")
    _require(moments or not state["seen"], "the optimizer has no moments")
    if scaler := state["scaler"]:
        good = 0 < scaler["scale"] < 3e38 and 0 <= scaler["_growth_tracker"] <= own["scaler"]["growth_interval"]
        _require(good, "the loss scale is out of range")
        state["scaler"] = {**own["scaler"], **{name: scaler[name] for name in ("scale", "_growth_tracker")}}
    for one in moments.values():
        _require(0 <= one["step"] <= step, f"the optimizer has done {one['step'].item():g} steps, the run {step}")
        _require(not (one["exp_avg_sq"] < 0).any(), "a mean of squared gradients is negative")
    if not many:  # among many learners, one may have diverged since the last report
        values = (*state["model"].values(), *(value for one in moments.values() for value in one.values()))
        _require(not any(value.isnan().any() for value in values), "weights or moments are not numbers")
    return state


def _refuse_to_read_past_the_end(random: Tensor) -> None:
    """Raises _Unfit for a state of the Mersenne twister from which torch would read memory behind its 624 numbers.

    torch compares the number of draws that are left, and the place of the next one, each with 624, but not their sum.
    The state begins with the seed (8 bytes), ``left`` (4), whether it is seeded (4), and ``next`` (8).
    """
    left, following = random[8:12].view(torch.int32).item(), random[16:24].view(torch.int64).item()
    _require(left >= 1 and following >= 0 and left + following <= 625, "random: no state of its generator")


def _fitted(found: object, form: object, where: str) -> Any:
    """``found`` with tensors copied into new memory of ``form``'s shape, type, device and layout.

    So no tensor shares memory with another one or reads past its end. Raises _Unfit if anything but values differs.
    """
    if isinstance(form, Tensor):
        fits = isinstance(found, Tensor) and found.layout == torch.strided and found.device.type == "cpu"
        fits = fits and (found.dtype, found.shape) == (form.dtype, form.shape)
        _require(fits, f"{where} is {_described(found)}, expected {_described(form)}")
        return torch.empty_like(form, requires_grad=False).copy_(found.detach())
    _require(type(found) is type(form), f"{where} is {_described(found)}, expected {_described(form)}")
    if isinstance(form, dict):
        odd = next(iter(found.keys() ^ form.keys()), None)
        _require(odd is None, f"{where}.{_shown(odd)} is {'missing' if odd in form else 'unknown'}")
        return {name: _fitted(found[name], value, f"{where}.{name}") for name, value in form.items()}
    if isinstance(form, list):
        return [_fitted(one, value, f"{where}.{i}") for i, (one, value) in enumerate(zip(found, form, strict=True))]
    return found


def _shown(name: object) -> str:
    """A name in a file, without line breaks and control characters."""
    return f"{ascii(str(name))[1:-1]:.60}"


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise _Unfit(reason)
