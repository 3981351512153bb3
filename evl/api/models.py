"""Models: found, made of a released checkpoint, exported."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from evl.api.settings import is_store
from evl.config import replace
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import read_class_names
from evl.errors import CheckpointError, ConfigError, SaveError, nearest, quoted
from evl.evaluation import load_for_store
from evl.evaluation.stored import refuse_other_features
from evl.runtime.distributed import pick_device
from evl.runtime.files import expand_home, is_used
from evl.runtime.out_folder import build_folder, hold_lock, lock_beside
from evl.saving import VideoClassifier, kinetics400_class_names, load, load_release, save_model, save_release
from evl.store.store import FeatureStore
from evl.training.run_folder import RunFolder

AnyPath = str | os.PathLike
SIZES = ("num_frames", "stride", "frames_per_second", "image_size", "backbone_weights", "revision")  # of ``evl.load``
VIEWS = ("num_clips", "num_crops", "batch_size", "num_workers")
FEW_VIDEOS = 16  # for fewer, starting processes to read them takes longer than it saves


def open_model(
    model: VideoClassifier | AnyPath, device: str | None, sizes: dict[str, Any], store: FeatureStore | None = None
) -> VideoClassifier:
    """A model, or the one in the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``;
    with ``store`` one that takes the store's features.

    ``device``: None: that of a model, else CUDA if there is one. Raises errors of ``evl.errors``.
    """
    refuse_unknown(sizes)
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if not isinstance(model, VideoClassifier):
        chosen = pick_device(device)
        return load(model, device=chosen, **sizes) if store is None else load_for_store(model, store, chosen)
    if sizes:
        raise ConfigError(
            f"{quoted(sizes)} go with the folder of a run; this model is loaded already: give them to evl.load"
        )
    if store is not None:
        refuse_other_features(store, model.card, "this model")
    return model if device is None else model.to(pick_device(device))


def refuse_unknown(sizes: Iterable[str]) -> None:
    """ConfigError for a name that is none of ``SIZES``."""
    for name in sizes:
        if name not in SIZES:
            raise ConfigError(f"there is no argument {name!r}{nearest(name, (*SIZES, *VIEWS))}")


def store_in(data: Any) -> FeatureStore | None:
    """The store of features that ``data`` is, or is the folder of."""
    return data if isinstance(data, FeatureStore) else FeatureStore(os.fspath(data)) if is_store(data) else None


def refuse_beside_store(**given: Any) -> None:
    if names := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"a store has its own videos, views and sizes: leave out {quoted(names)}")


def workers_for(num_videos: int, wanted: int | None) -> int:
    """Processes that read so many videos: ``wanted``, or one a core, but none for a few videos."""
    return wanted if wanted is not None else 0 if num_videos < FEW_VIDEOS else default_num_workers()


def export(
    model: VideoClassifier | AnyPath,
    out: AnyPath | None = None,
    *,
    format: Literal["evl", "release"] = "evl",
    with_backbone: bool | None = None,
    push: str | None = None,
    private: bool | None = None,
    **sizes: Any,
) -> str | None:
    """Writes a model that can be given away, and pushes it to the Hugging Face Hub; the address there, if it is pushed.

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads with ``sizes``.
        out: a new folder, or a new file for ``format="release"``; None: it is only pushed.
        format: ``evl``: a folder that ``evl.load`` reads; ``release``: a checkpoint like those of the original EVL.
        with_backbone: the frozen encoder's weights too (mind their licence); None: as the model came.
        push: owner/name, after ``hf auth login``.
        private: make a new model there private.

    Raises ConfigError where there is nowhere to export to, SaveError where something is there already, RunError where
    another process exports to the same place.
    """
    if out is None and push is None:
        raise ConfigError("nowhere to export to: give `out`, or `push=OWNER/NAME`")
    if format not in ("evl", "release"):
        raise ConfigError(f"format {format!r}: expected evl or release")
    if format == "release" and (with_backbone or push):
        raise ConfigError("`format=release` is one file without a backbone; leave out `with_backbone` and `push`")
    out = None if out is None else expand_home(Path(out))
    with nullcontext() if out is None else hold_lock(lock_beside(out), out):
        if out is not None and out.exists() and (format != "evl" or is_used(out)):
            raise SaveError(f"{out} is there already; choose another `out`")
        if not isinstance(model, VideoClassifier):
            model = open_model(model, "cpu", sizes)
        if format == "release":
            save_release(model, out)
        elif out is not None:
            model.save_pretrained(out, with_backbone=with_backbone)
    return None if push is None else model.push_to_hub(push, with_backbone=with_backbone, private=private)


def import_release(
    checkpoint: AnyPath,
    backbone: AnyPath,
    out: AnyPath,
    *,
    classes: AnyPath | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    with_backbone: bool = False,
) -> VideoClassifier:
    """Makes a run, the folder ``out``, of a checkpoint of the original EVL release; its model.

    Args:
        backbone: the CLIP that it was trained on: OpenAI's archive, or a name.
        classes: ``kinetics400``, or a file with a class name on each line; None: the numbers of the classes.
        num_frames: only for a checkpoint without temporal positions.
        stride: frames between neighbors; None: 16, or 8 for 32 frames.
        with_backbone: keep the encoder's weights in the run too.

    Raises errors of ``evl.errors``.
    """
    names = None
    if classes is not None:
        names = kinetics400_class_names() if os.fspath(classes) == "kinetics400" else read_class_names(classes)
    backbone = os.fspath(backbone)
    model = load_release(checkpoint, backbone, class_names=names, num_frames=num_frames, stride=stride)
    if model.card is None:
        raise CheckpointError(f"{checkpoint} has no temporal positions that tell its frames; give `num_frames`")
    config = model.card.config
    if config.backbone.weights is not None:
        config = replace(config, backbone={"weights": str(Path(config.backbone.weights).absolute())})
    out = expand_home(Path(out))
    with hold_lock(lock_beside(out), out), build_folder(out) as folder:
        RunFolder(folder).create(config, model.class_names, (), (), {})
        save_model(model, folder, with_backbone=with_backbone)
    return model
