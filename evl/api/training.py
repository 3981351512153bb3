"""Train a classifier, many on few videos, or a grid of them: one call each."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from evl.api.settings import config_for, place_of, refuse_other_videos
from evl.backbones.embedded import EMBEDDED
from evl.backbones.weights.fetch import weights_on_disk
from evl.config import BackboneConfig, RunConfig
from evl.errors import ConfigError, EVLError, quoted
from evl.inference.reading import device_of
from evl.runtime.distributed import join_world
from evl.runtime.out_folder import Resume
from evl.runtime.progress import Report, showing
from evl.saving import VideoClassifier, load
from evl.training.few_shots.few_shot import few_shot as few_shot_runs
from evl.training.few_shots.report import FewShotResult
from evl.training.pace import RunTime, log_run_time
from evl.training.run import train as train_run
from evl.training.sweeps.results import SweepResult
from evl.training.sweeps.sweep import sweep as sweep_grid

log = logging.getLogger("evl")
AnyPath = str | PathLike


def train(
    config: RunConfig | AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    data: AnyPath | Mapping[str, Any] | None = None,
    backbone: str | BackboneConfig | Mapping[str, Any] | None = None,
    recipe: str | None = None,
    settings: Iterable[str] = (),
    resume: Resume = False,
    device: str | None = None,
    with_encoder: bool = True,
    progress: bool | Report = True,
    on_pace: Callable[[RunTime], None] = log_run_time,
    **fields: Any,
) -> VideoClassifier:
    """Trains a classifier, judges and saves it in the folder ``out``; the model, in evaluation mode.

        model = evl.train(data="videos/", out="runs/mine", steps=2000)
        model.run.evaluation.top1

    Args:
        config: where to start from, an ``evl.RunConfig`` or a config.yaml; None: the defaults, or what a store holds.
        data: a folder with a folder per class, a data set, a list of videos, or a store of features.
        backbone: the frozen encoder: a name, a file, or its section.
        recipe: where to start from instead of ``config``, by name.
        settings: single settings as on the command line, such as ``"training.steps=2000"``.
        resume: True: go on with the run in ``out`` from its newest checkpoint; of the arguments above only ``settings``
            may be given. "auto": begin, or go on if there is a run; the arguments must be those that it was begun with.
            So one command works after every restart, such as those of torchrun --max-restarts.
        with_encoder: whether a model that was trained from a store gets its encoder, where the encoder's weights are
            on this machine. Without an encoder it takes features only.
        progress: True: bars with the time left, and what evl logs; False: no bars, and warnings only; or a function
            that is called with an ``evl.training.Progress``.
        fields: settings by name (``steps=2000``), by section (``training={"steps": 2000}``), or by both in one
            (``**{"training.steps": 2000}``). A name that several sections have needs its section; only ``decoder``
            alone is ``model.decoder``.

    ``model.run`` is the ``evl.training.RunResult``. After Ctrl-C a checkpoint is saved and
    ``evl.training.Interrupted`` raised. Raises errors of ``evl.errors``.
    """
    settings = (settings,) if isinstance(settings, str) else tuple(settings)
    start = {"config": config, "data": data, "backbone": backbone, "recipe": recipe, **fields}
    with showing(progress) as report:
        goes_on = resume is True
        chosen = _config(out, resume, start if goes_on else {**start, "settings": settings})
        how = dict(resume=resume, settings=settings if goes_on else (), device=device, progress=report, on_pace=on_pace)
        result = train_run(chosen, out, **how)
        model = result.model
        if with_encoder and model.backbone is None:
            model = _with_encoder(model, result.folder)
    model.run, model.folder = result, result.folder
    return model


def _config(out: AnyPath | None, resume: Resume, given: Mapping[str, Any]) -> RunConfig | None:
    """The config of the arguments ``given``; None where a run goes on: with True it takes none of them, and with "auto"
    it needs none."""
    if not isinstance(out, str | PathLike):
        raise ConfigError(f"where to? Give `out`, the path of a new folder, not {out!r:.60}")
    if resume not in (True, False, "auto"):
        raise ConfigError(f'resume {resume!r:.60}: expected True, False or "auto"')
    names = [name for name, value in given.items() if value is not None and value not in ((), [])]
    if not resume or (resume == "auto" and names):
        return config_for(**given)
    if names:
        raise ConfigError(f"resume goes on with the settings in {out}: leave out {quoted(names)}")
    return None


def _with_encoder(model: VideoClassifier, folder: Path) -> VideoClassifier:
    """The model of a run from a store with its encoder, if that is on this machine; else ``model`` itself."""
    backbone = model.card.config.backbone
    is_here = backbone.weights is not None or backbone.name == EMBEDDED or not backbone.pretrained
    if not is_here and weights_on_disk(backbone.name) is None:
        log.info("the weights of %s are not on this machine: the model takes features only", backbone.name)
        return model
    try:
        return load(folder, device=device_of(model))
    except EVLError as error:
        log.warning("the model takes features only, because its encoder cannot be loaded: %s", error)
        return model


def estimate_training(
    config: RunConfig | AnyPath | None = None,
    *,
    data: AnyPath | Mapping[str, Any] | None = None,
    device: str | None = None,
    **start: Any,
) -> RunTime:
    """How long ``evl.train`` of the same arguments will take: ``.seconds`` and ``.sentence``.

    Its first steps are done, for up to about a minute, and thrown away. A shorter run is done whole. Files are written
    to a temporary folder only, which is removed. Raises what ``evl.train`` does, and ConfigError under torchrun.
    """
    chosen = config_for(data, config=config, **start)
    with join_world(device) as world:
        if world.size > 1:
            raise ConfigError("an estimate is made in one process: leave torchrun out")

    def stop(run_time: RunTime) -> None:
        raise _Measured(run_time)

    with tempfile.TemporaryDirectory(prefix="evl-estimate-") as folder:
        started = time.monotonic()
        try:
            train_run(chosen, Path(folder) / "run", device=device, on_pace=stop)
        except _Measured as measured:
            return measured.run_time
        seconds = time.monotonic() - started
        steps = RunConfig.from_yaml(Path(folder) / "run" / "config.yaml").training.steps
        return RunTime(steps, seconds / steps, measured=True)


class _Measured(Exception):
    """The first steps are measured, so the run is stopped."""

    def __init__(self, run_time: RunTime):
        self.run_time = run_time


def few_shot(
    config: RunConfig | AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    data: AnyPath | Mapping[str, Any] | None = None,
    shots: int | Sequence[int] = (),
    draws: int | None = None,
    keep_runs: bool = False,
    resume: Resume = False,
    device: str | None = None,
    progress: bool | Report = True,
    **start: Any,
) -> FewShotResult:
    """Trains models on a few videos per class, with several draws of the videos, and judges them.

        evl.few_shot(data="store", out="runs/few", shots=[1, 2, 4, 8, 16]).rows[0].mean

    Args:
        data: a store of features with validation videos.
        shots: numbers of training videos of each class.
        draws: for each of ``shots``, how many times the videos are drawn, 2 to 20; None: 5.
        keep_runs: keep every model and its predictions.
        resume: True: go on in ``out`` with those of ``shots`` that are not done; no argument above may be given.
            "auto": begin, or go on, as for ``evl.train``.

    The other arguments are those of ``evl.train``. Raises errors of ``evl.errors``.
    """
    given = {"config": config, "data": data, **start}
    shots = (shots,) if isinstance(shots, int) else tuple(shots)
    drawn = {"shots": shots, "draws": draws, "keep_runs": keep_runs or None}
    with showing(progress) as report:
        chosen = _config(out, resume, {**given, **drawn} if resume is True else given)
        how = dict(keep_runs=keep_runs, resume=resume, device=device, progress=report)
        return few_shot_runs(chosen, out, shots=shots, draws=5 if draws is None else draws, **how)


def sweep(
    config: RunConfig | AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | Iterable[str] = (),
    data: AnyPath | Mapping[str, Any] | None = None,
    backbone: str | BackboneConfig | Mapping[str, Any] | None = None,
    keep_predictions: bool = False,
    resume: Resume = False,
    device: str | None = None,
    progress: bool | Report = True,
    **start: Any,
) -> SweepResult:
    """Trains a learner for every combination of ``grid`` in one pass over the data; validation videos choose the best.

        result = evl.sweep(data="store", out="sweeps/lr", grid={"lr": [1e-4, 3e-4], "temporal_conv": [True, False]})
        model = evl.load("sweeps/lr/best")

    ``grid``: name of a setting → the values to try; or texts as on the command line, "training.lr=1e-4,3e-4". The
    other arguments are those of ``evl.train``. Every learner is saved as a run in ``out``. Raises errors of
    ``evl.errors``; FinishedError where ``resume`` finds nothing left to do.
    """
    grid = [grid] if isinstance(grid, str) else grid
    texts = [_texts(*pair) for pair in grid.items()] if isinstance(grid, Mapping) else list(grid)
    given = {"config": config, "data": data, "backbone": backbone, **start}
    with showing(progress) as report:
        chosen = _config(out, resume, {**given, "grid": texts} if resume is True else given)
        if chosen is not None:
            refuse_other_videos(chosen, None, [text.partition("=")[0] for text in texts])
        how = dict(resume=resume, device=device, keep_predictions=keep_predictions, progress=report)
        return sweep_grid(chosen, texts, out, **how)


def _texts(name: str, values: Sequence[Any]) -> str:
    """``lr``, [1e-4, 3e-4] -> "training.lr=0.0001,0.0003"."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"grid: {name} is {values!r:.60}; expected a list of the values to try")
    values = [str(value) if isinstance(value, PathLike) else value for value in values]
    try:
        return f"{place_of(name)}={','.join(json.dumps(value, ensure_ascii=False) for value in values)}"
    except TypeError as error:
        raise ConfigError(f"grid: {name}: {error}") from None
