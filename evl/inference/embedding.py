"""One vector per video, for search, clustering and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from evl.data.manifests.manifest import Videos
from evl.errors import ConfigError
from evl.inference.predictor import stream_of
from evl.inference.reading import Reader, evaluating, evaluation_of, read
from evl.models import Classifier, MeanPool
from evl.runtime.distributed import World
from evl.runtime.files import expand_home, write_atomically, write_table
from evl.runtime.precision import without_autocast
from evl.streams import Stream
from evl.types import LayerFeatures, Sample

Pool = Literal["query", "mean"]


@dataclass(frozen=True)
class Embeddings:
    """``vectors`` (n,D) float32 of ``samples``, the videos that could be read; ``damaged``: name → reason."""

    samples: tuple[Sample, ...]
    vectors: np.ndarray
    damaged: dict[str, str]


def embed(
    model: Classifier,
    stream: Stream | Videos,
    *,
    pool: Pool = "query",
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Embeddings:
    """Computes one vector per video: the mean of ``vectors_of`` over the video's views.

    ``stream`` gives views on the model's encoder, such as the stream from ``views_for``. In its place there may be
    videos: samples, files, folders and manifests, one or several. Labels are ignored.
    """
    stream = stream_of(model, stream)
    reader = Reader(lambda features: vectors_of(model, features, pool), model.encoder.taps)
    with evaluating([model]):
        (vectors,), damaged = read(
            stream,
            [reader],
            batch_size=evaluation_of(model, batch_size=batch_size).batch_size,
            world=World(0, 1, stream.device),
            progress=progress,
        )
    order = sorted(vectors)
    table = np.stack([vectors[index] for index in order]) if order else np.zeros((0, 0))
    reasons = {stream.samples[index].name: reason for index, reason in damaged.items()}
    return Embeddings(tuple(stream.samples[index] for index in order), table.astype(np.float32), reasons)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The embeddings of all parts as one, in order."""
    samples = tuple(sample for part in parts for sample in part.samples)
    vectors = np.concatenate([part.vectors for part in parts if part.samples] or [np.zeros((0, 0), np.float32)])
    return Embeddings(samples, vectors, {name: why for part in parts for name, why in part.damaged.items()})


def vectors_of(model: Classifier, features: Sequence[LayerFeatures], pool: Pool) -> Tensor:
    """Features -> vectors (B,D). Raises ConfigError for another ``pool`` than these two.

    ``query`` returns the trained decoder's output, or for a zero-shot model the embedding that it compares with the
    names of classes. ``mean`` returns the mean of the deepest tapped block's patch tokens, which does not depend on
    training.
    """
    if pool not in ("query", "mean"):
        raise ConfigError(f"pool {pool!r}: expected 'query' or 'mean'")
    with torch.no_grad(), without_autocast(features[0].tokens.device):
        if pool == "mean":
            return MeanPool(model.encoder.spec.width, model.encoder.spec.num_prefix_tokens)(features)
        if model.card is not None and model.card.config.model.decoder == "zero_shot":
            return model.decoder.embed(features)
        return model.decoder(features)


def write_embeddings(path: str | Path, embeddings: Embeddings, splits: Sequence[str] | None = None) -> None:
    """Writes vectors, and path, label, split, start_seconds and end_seconds of each video.

    A ``.parquet`` file has one row per video. A ``.npy`` file has only the vectors (n,D), and the other columns are
    written to ``NAME.videos.csv``. Raises ConfigError for other endings, SaveError if the system cannot write.
    """
    path = require_ending(path)
    columns = {
        "path": [sample.path for sample in embeddings.samples],
        "label": [sample.label for sample in embeddings.samples],
        "split": list(splits) if splits is not None else [None] * len(embeddings.samples),
        "start_seconds": [sample.start_seconds for sample in embeddings.samples],
        "end_seconds": [sample.end_seconds for sample in embeddings.samples],
    }
    if path.suffix == ".npy":
        with write_atomically(path) as file:
            np.save(file, embeddings.vectors, allow_pickle=False)
        write_table(path.with_suffix(".videos.csv"), [list(columns), *zip(*columns.values(), strict=True)])
    else:
        import pyarrow as pa
        import pyarrow.parquet

        width = embeddings.vectors.shape[1]
        flat = pa.array(embeddings.vectors.reshape(-1), pa.float32())
        kinds = [pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64()]
        arrays = [pa.array(values, kind) for values, kind in zip(columns.values(), kinds, strict=True)]
        table = pa.table([*arrays, pa.FixedSizeListArray.from_arrays(flat, width)], names=[*columns, "vector"])
        with write_atomically(path) as file:
            pyarrow.parquet.write_table(table, file)


def require_ending(path: str | Path) -> Path:
    """The path with ``~`` replaced. Raises ConfigError if its ending is neither .parquet nor .npy."""
    path = expand_home(Path(path))
    if path.suffix not in (".parquet", ".npy"):
        raise ConfigError(f"{path}: expected a name that ends in .parquet or .npy")
    return path
