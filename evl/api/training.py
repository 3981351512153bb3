"""Train, sweep and extract, in one call each."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from evl.api.settings import config_for, place_of
from evl.backbones.embedded import EMBEDDED
from evl.backbones.weights.fetch import weights_on_disk
from evl.config import BackboneConfig, RunConfig
from evl.errors import ConfigError, EVLError
from evl.extraction.extract import ExtractResult
from evl.extraction.extract import extract as extract_features
from evl.inference.reading import device_of
from evl.runtime.progress import Report, showing
from evl.saving import VideoClassifier, load
from evl.store.description import StoreOptions
from evl.training.pace import RunTime, say
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
    resume: bool = False,
    device: str | None = None,
    progress: bool | Report = True,
    on_pace: Callable[[RunTime], None] = say,
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
        resume: go on with the run in ``out`` from its newest checkpoint; of the others only ``settings`` may be given.
        progress: True: bars with the time left, and what evl logs; False: nothing; or a function that is called with an
            ``evl.training.Progress``.
        fields: settings by name (``steps=2000``), by section (``training={"steps": 2000}``), or by both in one
            (``**{"training.steps": 2000}``). A name that several sections have needs its section.

    ``model.run`` is the ``evl.training.RunResult``. A model that was trained from a store gets its encoder where the
    encoder's weights are on this machine; else it takes features only, which is logged. After Ctrl-C a checkpoint is
    saved and ``evl.training.Interrupted`` raised. Raises errors of ``evl.errors``.
    """
    if out is None:
        raise ConfigError('where to? Give out="runs/mine", the folder of the run')
    settings = (settings,) if isinstance(settings, str) else tuple(settings)
    if resume:
        begin = {"config": config, "data": data, "backbone": backbone, "recipe": recipe, **fields}
        if given := [name for name, value in begin.items() if value is not None]:
            raise ConfigError(
                f"resume=True goes on with what {out} was told: leave out {', '.join(given)}; what may change is given "
                'as settings=["data.root=…"]'
            )
    given = dict(backbone=backbone, recipe=recipe, config=config, settings=settings, fields=fields)
    with showing(progress) as report:
        chosen, settings = (None, settings) if resume else (config_for(data, **given), ())
        how = dict(resume=resume, settings=settings, device=device, progress=report, on_pace=on_pace)
        result = train_run(chosen, out, **how)
        model = result.model if result.model.backbone is not None else _with_encoder(result.model, result.folder)
    model.run = result
    return model


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


def sweep(
    config: RunConfig | AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | Iterable[str] = (),
    data: AnyPath | Mapping[str, Any] | None = None,
    backbone: str | BackboneConfig | Mapping[str, Any] | None = None,
    recipe: str | None = None,
    settings: Iterable[str] = (),
    resume: bool = False,
    device: str | None = None,
    keep_predictions: bool = False,
    progress: bool | Report = True,
    **fields: Any,
) -> SweepResult:
    """Trains a head for every combination of ``grid`` in one pass over the data, and chooses by the validation videos.

        result = evl.sweep(data="store", out="sweeps/lr", grid={"lr": [1e-4, 3e-4], "temporal_conv": [True, False]})
        model = evl.load("sweeps/lr/best")

    ``grid``: name of a setting → the values to try; or texts as on the command line, "training.lr=1e-4,3e-4". The
    other arguments are those of ``evl.train``. Every head is saved as a run in ``out``. Raises errors of
    ``evl.errors``.
    """
    if out is None:
        raise ConfigError('where to? Give out="sweeps/mine", the folder of the sweep')
    grid = [grid] if isinstance(grid, str) else grid
    texts = [_texts(*pair) for pair in grid.items()] if isinstance(grid, Mapping) else list(grid)
    if resume:
        begin = {"config": config, "data": data, "backbone": backbone, "recipe": recipe, **fields}
        begin |= {"grid": texts or None, "settings": list(settings) or None}
        if given := [name for name, value in begin.items() if value is not None]:
            raise ConfigError(f"resume=True goes on with what {out} was told: leave out {', '.join(given)}")
    given = dict(backbone=backbone, recipe=recipe, config=config, settings=settings, fields=fields)
    with showing(progress) as report:
        chosen = None if resume else config_for(data, **given)
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


def extract(
    data: AnyPath | Mapping[str, Any] | None = None,
    out: AnyPath | None = None,
    *,
    backbone: str | BackboneConfig | Mapping[str, Any] | None = None,
    config: RunConfig | AnyPath | None = None,
    recipe: str | None = None,
    settings: Iterable[str] = (),
    clips_per_video: int = 1,
    frames: int | None = None,
    form: str = "tokens",
    dtype: str = "float16",
    scale: str = "channel",
    shard_megabytes: int = 128,
    part: tuple[int, int] = (1, 1),
    device: str | None = None,
    yes: bool = False,
    progress: bool | Report = True,
    **fields: Any,
) -> ExtractResult:
    """Writes what the frozen encoder says of every video into a store, the folder ``out``, or goes on with one.

        evl.extract("videos/", out="store", backbone="vit_base_patch16_clip_quickgelu_224.openai")
        model = evl.train(data="store", out="runs/mine", lr=1e-3)

    Args:
        clips_per_video: augmented clips of each training video.
        frames: None, or longer runs of frames, of which training draws its clips.
        form, dtype, scale, shard_megabytes: how they are stored (docs/store.md).
        part: (i, n), the i-th of n parts from 1, for n processes side by side.
        yes: go on where the disk seems too small.

    The other arguments are those of ``evl.train``. The result may be given as ``data`` to whatever reads a store;
    its ``damaged`` are the videos that could not be read. Raises errors of ``evl.errors``.
    """
    if out is None:
        raise ConfigError('where to? Give out="store", the folder of the store')
    options = StoreOptions(
        form=form, dtype=dtype, scale=scale, clips_per_video=clips_per_video, frames=frames,
        shard_megabytes=shard_megabytes,
    )  # fmt: skip
    given = dict(backbone=backbone, recipe=recipe, config=config, settings=settings, fields=fields)
    with showing(progress) as report:
        chosen = config_for(data, **given)
        if chosen.data.features is not None:
            raise ConfigError("data is a store of features already; give the videos")
        return extract_features(chosen, out, options, device=device, part=part, yes=yes, progress=report)
