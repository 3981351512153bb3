"""predictions.parquet: what comes back, how small it is, and what is refused."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import evl
from evl.errors import DataError
from evl.evaluation import Evaluation, Judged, compute_metrics, write_evaluation, write_predictions
from evl.types import Prediction

NAMES = ("öffnen", "开门", "a, b", "never")


def evaluation(predictions, names=NAMES):
    metrics = compute_metrics(Judged.of(predictions, names))
    return Evaluation(metrics, tuple(predictions), {}, "8x16 frames", tuple(names))


@pytest.fixture
def judged():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 5)
    return evaluation(
        [
            Prediction(f"/v/{i}.mp4", tuple(row.tolist()), i % 3, 1.5 if i == 2 else None, 3.25 if i == 2 else None)
            for i, row in enumerate(scores)
        ]
    )


def test_what_was_written_comes_back(judged, tmp_path):
    write_evaluation(tmp_path, judged, picture=False)
    for where in (tmp_path, str(tmp_path / "predictions.parquet")):
        found = evl.read_predictions(where)
        assert (found.class_names, found.protocol) == (NAMES, "8x16 frames")
        assert found.paths == tuple(one.path for one in judged.predictions)
        assert found.labels.tolist() == [one.label for one in judged.predictions]
        assert found.predicted.tolist() == [one.best(1)[0] for one in judged.predictions]
        assert found.scores.dtype == np.float32
        assert found.scores.flags.writeable  # torch.from_numpy warns otherwise
        assert np.array_equal(found.scores, np.float32([one.scores for one in judged.predictions]))
        assert found.start_seconds == (None, None, 1.5, None, None)
        assert found.end_seconds == (None, None, 3.25, None, None)
    for again in (found, Judged.of(found.predictions, found.class_names)):  # the scores are those of what was written
        assert np.array_equal(compute_metrics(again).confusion, judged.metrics.confusion)
        assert compute_metrics(again).values() == pytest.approx(judged.metrics.values(), rel=1e-6)
    assert [(one.path, one.label, one.end_seconds) for one in found.predictions] == [
        (one.path, one.label, one.end_seconds) for one in judged.predictions
    ]


def test_other_programs_read_it(judged, tmp_path):
    """Class names are texts in every row, and stand in the file once."""
    write_predictions(tmp_path / "p.parquet", judged)
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table["label"].to_pylist() == [NAMES[one.label] for one in judged.predictions]
    assert table["prediction"].to_pylist() == [NAMES[one.best(1)[0]] for one in judged.predictions]
    assert table.schema.field("scores").type.list_size == 4
    assert json.loads(table.schema.metadata[b"evl"])["class_names"] == list(NAMES)


def test_names_cost_nothing_per_video(tmp_path):
    """It was 13 kB per video of 400 classes."""
    names = [f"a class with a rather long name, number {y}" for y in range(400)]
    sizes = []
    for count in (100, 300):
        scores = np.random.default_rng(0).dirichlet(np.full(400, 0.1), count)
        write_predictions(
            tmp_path / "p.parquet",
            evaluation([Prediction(f"{i}.mp4", tuple(row.tolist()), i) for i, row in enumerate(scores)], names),
        )
        sizes.append((tmp_path / "p.parquet").stat().st_size)
    assert (sizes[1] - sizes[0]) / 200 < 1700


def test_no_videos_and_names_that_are_no_text(tmp_path):
    write_predictions(tmp_path / "p.parquet", evaluation([]))
    assert evl.read_predictions(tmp_path / "p.parquet").scores.shape == (0, 4)
    write_predictions(tmp_path / "p.parquet", evaluation([Prediction("\udcff.mp4", (0.1, 0.2, 0.3, 0.4), 0)]))
    assert evl.read_predictions(tmp_path / "p.parquet").paths == ("\\udcff.mp4",)


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"predictions.parquet: no such file; a run has one once it was evaluated"):
        evl.read_predictions(tmp_path)


def _changed(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


def _metadata(table, **changes):
    told = json.loads(table.schema.metadata[b"evl"]) | changes
    return table.replace_schema_metadata({"evl": json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace_schema_metadata(None), "no class names"),
        (lambda t: _metadata(t, class_names=[*NAMES, "more"]), "its columns are"),
        (lambda t: _metadata(t, class_names=["a", "a", "b", "c"]), "not different ones"),
        (lambda t: _metadata(t, class_names="name"), "are no texts"),
        (lambda t: _metadata(t, class_names=["a", "b", "c", "d"]), "that is none of its"),
        (lambda t: t.drop_columns(["end_seconds"]), "its columns are"),
        (lambda t: _changed(t, "scores", pa.array([[1.0] * 4] * 5)), "its columns are"),
        (
            lambda t: _changed(
                t, "scores", pa.FixedSizeListArray.from_arrays(pa.array([math.nan] * 20, pa.float32()), 4)
            ),
            "a score that is no number",
        ),
        (lambda t: _changed(t, "path", pa.array([None] * 5, pa.string())), "a video without path"),
    ],
)
def test_what_it_cannot_be_is_refused(judged, tmp_path, change, reason):
    write_predictions(tmp_path / "p.parquet", judged)
    parquet.write_table(change(parquet.read_table(tmp_path / "p.parquet")), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=reason):
        evl.read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello" * 100])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(DataError, match="damaged, or no predictions of evl"):
        evl.read_predictions(tmp_path / "p.parquet")


def test_every_cut_is_refused(judged, tmp_path):
    write_predictions(tmp_path / "p.parquet", judged)
    whole = (tmp_path / "p.parquet").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "p.parquet").write_bytes(whole[:end])
        with pytest.raises(DataError):
            evl.read_predictions(tmp_path / "p.parquet")
