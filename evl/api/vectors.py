"""Videos → vectors, by a model or a bare encoder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evl.api.judging import choose_split
from evl.api.models import open_model, refuse_beside_store, refuse_unknown, store_in, workers_for
from evl.backbones import FrozenBackbone, parse_backbone
from evl.config import BackboneConfig, RunConfig
from evl.config import replace as replace_settings
from evl.data.manifests import Manifest
from evl.data.manifests.manifest import AnyPath, Videos, read_manifest, videos_at
from evl.errors import ConfigError, DataError, SaveError, plural
from evl.evaluation import NeighborScores, encoder_for, neighbor_scores, protocol_of, views_of_store
from evl.inference import views_for
from evl.inference.embedding import Embeddings, Pool, joined, require_ending, write_embeddings
from evl.inference.embedding import embed as embed_views
from evl.runtime.distributed import pick_device
from evl.runtime.progress import Report, counting, showing
from evl.saving import VideoClassifier, build_classifier
from evl.saving.folder import is_hub_id
from evl.store.store import FeatureStore

Data = Videos | Manifest | FeatureStore
NO_CLASSES = ("unused", "head")  # of a model whose head is never asked


@dataclass(frozen=True)
class VideoVectors(Embeddings):
    """``splits``: of each row; None where the videos have none. ``protocol``: how the videos were shown, on a line."""

    splits: tuple[str | None, ...] = ()
    pool: Pool = "query"
    protocol: str = ""

    def neighbors(self) -> NeighborScores:
        """How often the nearest vectors are of the same class: test (or val) among train where there are these splits,
        else every video among all others. Raises DataError for one video alone, or videos without labels."""
        if len(self.samples) < 2:
            raise DataError("one video alone has no neighbors")
        if any(sample.label is None for sample in self.samples):
            raise DataError("these videos have no labels; give a folder per class, or a list with labels")
        names = sorted({sample.label for sample in self.samples})
        labels = [names.index(sample.label) for sample in self.samples]
        asked = next((name for name in ("test", "val") if name in self.splits), None)
        if asked is None or "train" not in self.splits:
            return neighbor_scores(self.vectors, labels, groups=[sample.path for sample in self.samples])
        queries, gallery = ([row for row, name in enumerate(self.splits) if name == one] for one in (asked, "train"))
        return neighbor_scores(
            self.vectors[queries],
            [labels[row] for row in queries],
            gallery=self.vectors[gallery],
            gallery_labels=[labels[row] for row in gallery],
        )


def embed(model: VideoClassifier | FrozenBackbone | AnyPath | BackboneConfig, paths: Data, **options) -> np.ndarray:
    """A vector of each video, (n,D) float32, in the order of ``paths``: means over views, not normalized.

        evl.embed("runs/mine", ["a.mp4", "b.mp4"])                              # what the trained decoder gathered
        evl.embed("vit_base_patch16_clip_quickgelu_224.openai", "videos/")     # mean patch tokens of a bare encoder

    ``model``: a model, the folder of a run (or owner/name on the hub), or an encoder: its name, file or config, or one
    that was made. ``paths``: files, folders, lists of videos, samples, or a store. ``options``: those of
    ``embed_videos``. Raises DataError where a video cannot be used; ``embed_videos`` leaves it out and lists it.
    """
    found = embed_videos(model, paths, **options)
    if found.damaged:
        name, reason = next(iter(found.damaged.items()))
        raise DataError(
            f"{plural(len(found.damaged), 'video')} cannot be used, such as {name}: {reason}; leave them out, or take "
            "evl.embed_videos, which lists them"
        )
    return found.vectors


def embed_videos(
    model: VideoClassifier | FrozenBackbone | AnyPath | BackboneConfig | None,
    data: Data,
    *,
    pool: Pool | None = None,
    split: str | None = None,
    root: AnyPath | None = None,
    labeled: bool = False,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str | None = None,
    out: AnyPath | None = None,
    progress: bool | Report = True,
    **sizes,
) -> VideoVectors:
    """``embed``, with the videos, labels and splits of the vectors, and those that could not be read.

    Args:
        model: as for ``embed``; None for the mean patch tokens that a store holds.
        pool: ``query``, what the trained decoder gathered (default of models), or ``mean``, the mean of patch tokens.
        split: only this split of a store or of labeled videos; None: all.
        labeled: ``data`` is a folder per class, a data set, or a list with labels, below ``root``.
        num_clips, num_crops, batch_size: None for the model's own.
        device: None: that of a model, else CUDA if there is one.
        out: FILE.parquet, or FILE.npy with the rest beside it in FILE.videos.csv, which is written; None: nothing is.
        progress: as for ``evl.train``.
        sizes: ``num_frames``, ``stride``, ``frames_per_second`` and ``image_size``, as for ``evl.load``.

    Raises DataError where not one video could be read.
    """
    refuse_unknown(sizes)
    sizes = {name: value for name, value in sizes.items() if value is not None}
    store = store_in(data)
    if out is not None:
        _refuse_out(require_ending(out), data)
    if store is not None:
        refuse_beside_store(root=root, num_clips=num_clips, num_crops=num_crops, num_workers=num_workers, **sizes)
        if split is not None and split not in store.splits:
            raise DataError(f"{store.path} has no split {split!r}, only {', '.join(store.splits)}")
        chosen = [one for name, one in store.splits.items() if split in (None, name)]
        samples = [sample for one in chosen for sample in one.samples]
        splits = [one.name for one in chosen for _ in one.samples]
    elif labeled or isinstance(data, Manifest):
        samples, splits = _listed(data, root, split)
    else:
        if split is not None or root is not None:
            raise ConfigError("split and root go with labeled videos: say labeled=True, or leave them out")
        samples = videos_at(data)
        splits = [None] * len(samples)
    model, has_learned = _model(model, store, device, sizes)
    pool = pool or ("query" if has_learned else "mean")
    if not has_learned and pool != "mean":
        raise ConfigError("a bare encoder has no query that learned: take pool mean, or a trained model")
    if store is not None:
        streams = [views_of_store(model, store, one.name, labeled=False) for one in chosen]
    else:
        workers = workers_for(len(samples), num_workers)
        streams = [views_for(model, samples, num_clips=num_clips, num_crops=num_crops, num_workers=workers)]
    with showing(progress) as report:
        how = dict(pool=pool, batch_size=batch_size, progress=counting(report, "embedding", len(samples)))
        parts = [embed_views(model, one, **how) for one in streams]
    found = joined(parts)
    if not found.samples:
        path, reason = next(iter(found.damaged.items()), ("", "there are none"))
        raise DataError(
            f"not one of {len(samples)} videos could be read, such as {path}: {reason}; nothing is written. Are these "
            "videos? 'evl check' looks at every one"
        )
    split_of = dict(zip((sample.name for sample in samples), splits, strict=True))
    protocol = protocol_of(model, streams[0], len(found.samples))
    if store is not None and "train" in splits:
        protocol += "; training videos by their stored training clips"
    kept = tuple(split_of[sample.name] for sample in found.samples)
    result = VideoVectors(found.samples, found.vectors, found.damaged, kept, pool, protocol)
    if out is not None:
        write_embeddings(out, result, kept)
    return result


def _refuse_out(out: Path, data: Any) -> None:
    """SaveError where the vectors would replace the list of videos."""
    written = {out.resolve(), out.with_suffix(".videos.csv").resolve()}
    if isinstance(data, str | os.PathLike) and Path(data).resolve() in written:
        raise SaveError(f"{out}: would be written over the list of videos; choose another `out`")


def _listed(data, root, split: str | None):
    """(samples, split of each) of a manifest or folder."""
    manifest = data if isinstance(data, Manifest) else read_manifest(data, root=root)
    manifest.require_videos()
    names = manifest.splits if split is None else [choose_split(manifest, split)]
    chosen = {name: manifest.splits[name] for name in names}
    samples = [sample for group in chosen.values() for sample in group]
    return samples, [name for name, group in chosen.items() for _ in group]


def _model(model, store: FeatureStore | None, device: str | None, sizes: dict) -> tuple[VideoClassifier, bool]:
    """(the model on its device, whether it was trained)."""
    if isinstance(model, VideoClassifier):
        return open_model(model, device, sizes, store), True
    is_path = isinstance(model, os.PathLike) and not os.path.isfile(model)  # a Path that is not there was to be a run
    if is_path or (isinstance(model, str) and (os.path.isdir(model) or is_hub_id(model))):
        return open_model(model, device, sizes, store), True
    if store is None:
        return bare_model(model, **sizes).to(pick_device(device)), False
    if model is not None:
        raise ConfigError("a store has its own encoder: give None instead of one, or a model that was trained on it")
    config = replace_settings(store.description.config, model={"decoder": "linear"})
    found = build_classifier(config, NO_CLASSES, backbone=encoder_for(config.model, store))
    return found.to(pick_device(device)).eval(), False


def bare_model(
    backbone: FrozenBackbone | BackboneConfig | AnyPath,
    *,
    num_frames: int | None = None,
    stride: int | None = None,
    frames_per_second: float | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> VideoClassifier:
    """A frozen encoder with nothing on it that learns. Its frames are spread over the whole video unless ``stride`` or
    ``frames_per_second`` says how far they are apart."""
    made = backbone if isinstance(backbone, FrozenBackbone) else None
    if made is not None and image_size is not None:
        raise ConfigError("image_size goes with an encoder's name; this one is made already")
    if made is not None:
        chosen = BackboneConfig(made.spec.name)
    else:
        chosen = backbone if isinstance(backbone, BackboneConfig) else parse_backbone(os.fspath(backbone))
    by = {"stride": stride, "frames_per_second": frames_per_second}
    by = {name: value for name, value in by.items() if value is not None}
    config = replace_settings(RunConfig(backbone=chosen), model={"decoder": "linear"})
    if by:
        config = replace_settings(config, clip=by)
    else:
        config = replace_settings(config, clip={"sampling": "segment"}, evaluation={"num_clips": 1})
    if num_frames is not None:
        config = replace_settings(config, clip={"num_frames": num_frames})
    if image_size is not None:
        config = replace_settings(config, backbone={"image_size": image_size})
    return build_classifier(config, NO_CLASSES, backbone=made).eval()
