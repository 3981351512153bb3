"""Predictions of labelled videos as one Parquet file: class names once, scores as numbers.

A row a video: ``path``, ``start_seconds``, ``end_seconds`` (null where the whole file was looked at), ``label`` and
``prediction`` (texts, by a dictionary), ``scores`` (a fixed-size list of float32, in the order of the class names). The
schema's metadata has the key ``evl``: JSON with ``class_names`` and ``protocol``.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evl.errors import DataError, one_line
from evl.evaluation.metrics import Judged
from evl.runtime.files import are_torn, expand_home, pair_id, strict_json, write_file
from evl.types import Prediction

if TYPE_CHECKING:
    import pyarrow

    from evl.evaluation.evaluate import Evaluation

PREDICTIONS, METRICS_FILE = "predictions.parquet", "metrics.json"


@dataclass(frozen=True)
class SavedPredictions(Judged):
    """Judged videos as they were written, for ``compute_metrics`` and every metric. ``scores`` (n,Y) are float32. Times
    are None where the whole file was looked at. ``protocol``: how it was measured."""

    start_seconds: tuple[float | None, ...]
    end_seconds: tuple[float | None, ...]
    protocol: str

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """One a video, as ``Evaluation.predictions``."""
        columns = (self.paths, self.scores.tolist(), self.labels.tolist(), self.start_seconds, self.end_seconds)
        return tuple(
            Prediction(path, tuple(scores), label, start, end, self.class_names)
            for path, scores, label, start, end in zip(*columns, strict=True)
        )


def write_predictions(path: str | Path, evaluation: Evaluation) -> None:
    """Writes an evaluation's predictions. Raises SaveError where the system refuses."""
    write_file(path, predictions_bytes(evaluation)[0])


def predictions_bytes(evaluation: Evaluation) -> tuple[bytes, str]:
    """The content of ``predictions.parquet``, and its id, which ``metrics.json`` has too: the hash of all in it."""
    import pyarrow as pa
    from pyarrow import parquet

    found, names = evaluation.predictions, evaluation.class_names
    scores = np.array([one.scores for one in found], np.float32).reshape(len(found), len(names))

    def classes(numbers: list[int]) -> pyarrow.Array:
        return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(names, pa.string()))

    columns = {
        # a name of bytes that are no text cannot stand in Parquet
        "path": pa.array([one.path.encode("utf-8", "backslashreplace").decode() for one in found], pa.string()),
        "start_seconds": pa.array([one.start_seconds for one in found], pa.float64()),
        "end_seconds": pa.array([one.end_seconds for one in found], pa.float64()),
        "label": classes([one.label for one in found]),
        "prediction": classes([one.best(1)[0] for one in found]),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), len(names)),
    }
    told = {"class_names": names, "protocol": evaluation.protocol}
    rows = [(one.path, one.start_seconds, one.end_seconds, one.label) for one in found]
    own_id = pair_id(json.dumps([told, rows]).encode(), scores.tobytes())
    text = json.dumps(told | {"id": own_id}, ensure_ascii=False)
    table, file = pa.table(columns).replace_schema_metadata({"evl": text}), io.BytesIO()
    parquet.write_table(
        table, file, compression="zstd", use_dictionary=["label", "prediction"],
        use_byte_stream_split=["scores.list.element"],  # of floats, the bytes that are alike stand together
    )  # fmt: skip
    return file.getvalue(), own_id


def read_predictions(path: str | os.PathLike) -> SavedPredictions:
    """The predictions of an evaluation: of a run's folder, or of a ``predictions.parquet``.

    Raises DataError for a file that is missing, damaged, or something else.
    """
    path = expand_home(Path(path))
    path = path / PREDICTIONS if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: no such file; a run has one once it was evaluated: evl evaluate RUN writes it")
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        table.validate(full=True)
        told = strict_json((table.schema.metadata or {}).get(b"evl", b"{}").decode())
        if not isinstance(told, dict) or not {"class_names", "protocol"} <= told.keys():
            raise ValueError("its metadata has no class names of evl")
        names, protocol = told["class_names"], told["protocol"]
        if not isinstance(names, list) or not all(isinstance(text, str) for text in (*names, protocol)):
            raise ValueError("its class names and protocol are no texts")
        if not names or len(set(names)) != len(names):
            raise ValueError("its class names are none, or not different ones")
        _refuse_other_metrics(path, told.get("id"))
        return _checked(table, tuple(names), protocol)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: damaged, or no predictions of evl ({one_line(error)}); evl evaluate writes them"
        ) from None


def _refuse_other_metrics(path: Path, own_id: object) -> None:
    """Raises DataError if ``metrics.json`` beside the predictions has the id of others."""
    try:
        beside = json.loads(path.with_name(METRICS_FILE).read_bytes())["predictions_id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # there is none, or it has no id
    if path.name == PREDICTIONS and are_torn(own_id, beside):
        raise DataError(
            f"{path} and {METRICS_FILE} are not of the same evaluation, which was perhaps stopped while it wrote them; "
            "run evl evaluate again"
        )


def _checked(table: pyarrow.Table, names: tuple[str, ...], protocol: str) -> SavedPredictions:
    """ValueError for columns that cannot be."""
    import pyarrow as pa

    kinds = {"path": pa.string(), "start_seconds": pa.float64(), "end_seconds": pa.float64()}
    kinds |= {name: pa.dictionary(pa.int32(), pa.string()) for name in ("label", "prediction")}
    found = {field.name: field.type for field in table.schema}
    scores = found.pop("scores", pa.null())
    is_scores = pa.types.is_fixed_size_list(scores) and scores.value_type == pa.float32()
    if found != kinds or not is_scores or scores.list_size != len(names):
        raise ValueError(f"its columns are {', '.join(f'{field.name} {field.type}' for field in table.schema)}")
    if any(table[name].null_count for name in ("path", "label", "prediction", "scores")):
        raise ValueError("a video without path, label or scores")
    number_of = {name: number for number, name in enumerate(names)}
    texts = {key: table[key].to_pylist() for key in ("label", "prediction")}
    if unknown := {*texts["label"], *texts["prediction"]} - number_of.keys():
        raise ValueError(f"a class {min(unknown)!r:.50} that is none of its class names")
    labels, predicted = ([number_of[name] for name in texts[key]] for key in ("label", "prediction"))
    scores = table["scores"].combine_chunks().flatten()
    if scores.null_count or not np.isfinite(values := scores.to_numpy().copy()).all():
        raise ValueError("a score that is no number")
    start, end = (tuple(table[name].to_pylist()) for name in ("start_seconds", "end_seconds"))
    return SavedPredictions(
        tuple(table["path"].to_pylist()), np.array(labels, np.int64), np.array(predicted, np.int64),
        values.reshape(len(table), len(names)), names, start, end, protocol,
    )  # fmt: skip
