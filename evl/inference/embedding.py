"""One vector per video, for search, clustering and plots."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from evl.data.manifests.manifest import Videos
from evl.errors import ConfigError, DataError, one_line
from evl.inference.predictor import stream_of
from evl.inference.reading import Reader, evaluating, evaluation_of, read
from evl.models import Classifier, MeanPool
from evl.runtime.distributed import World
from evl.runtime.files import expand_home, table_text, write_atomically, write_together
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
    written to ``NAME.videos.csv``, with the CRC-32 of each vector. ``read_embeddings`` reads both. Raises ConfigError
    for other endings, SaveError if the system cannot write.
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
        columns["checksum"] = [_checksum(vector) for vector in embeddings.vectors]
        vectors = io.BytesIO()
        np.save(vectors, embeddings.vectors, allow_pickle=False)
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        write_together({path.with_suffix(".videos.csv"): table_text(rows), path: vectors.getvalue()})
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


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads what ``write_embeddings`` wrote: ``.samples`` and ``.vectors``.

    Raises DataError for a file that is missing or damaged, and for vectors that are not those of the list beside them.
    """
    path = require_ending(path)
    try:
        if path.suffix == ".npy":
            rows, vectors = _read_pair(path)
        else:
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
            vectors = np.array([row.pop("vector") for row in rows], np.float32).reshape(len(rows), -1)
        names = "path", "label", "start_seconds", "end_seconds"
        samples = tuple(Sample(*(row[name] for name in names)) for row in rows)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; evl embed writes it") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path}: damaged, or no vectors of evl ({one_line(error)}); evl embed writes them") from None
    return Embeddings(samples, vectors, {})


def _read_pair(path: Path) -> tuple[list[dict], np.ndarray]:
    """The rows of a list, and the vectors beside it. Raises DataError if they do not belong together."""
    beside = path.with_suffix(".videos.csv")
    vectors = np.load(path, allow_pickle=False)
    with open(beside, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if vectors.ndim != 2 or [row["checksum"] for row in rows] != [str(_checksum(one)) for one in vectors]:
        raise DataError(
            f"{path} and {beside.name} are not of the same evl embed, which was perhaps stopped while it wrote them; "
            "run it again"
        )
    for row in rows:
        for name in ("start_seconds", "end_seconds"):
            row[name] = float(row[name]) if row[name] else None
        row["label"] = row["label"] or None
    return rows, vectors


def _checksum(vector: np.ndarray) -> int:
    """The CRC-32 of a vector's bytes, in float32."""
    return zlib.crc32(np.ascontiguousarray(vector, "<f4").tobytes())


def require_ending(path: str | Path) -> Path:
    """The path with ``~`` replaced. Raises ConfigError if its ending is neither .parquet nor .npy."""
    path = expand_home(Path(path))
    if path.suffix not in (".parquet", ".npy"):
        raise ConfigError(f"{path}: expected a name that ends in .parquet or .npy")
    return path
