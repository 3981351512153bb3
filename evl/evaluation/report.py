"""Evaluations as files: predictions, scores, and a picture of the confusion matrix."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from evl.errors import SaveError
from evl.evaluation.evaluate import Evaluation
from evl.evaluation.picture import drawing, lettering, save_picture
from evl.evaluation.saved_predictions import METRICS_FILE, PREDICTIONS, predictions_bytes
from evl.runtime.files import expand_home, json_bytes, remove_file, table_text, write_file, write_together
from evl.runtime.out_folder import LOCK, hold_lock, made_folder, refuse_held
from evl.runtime.progress import is_main_process

EVALUATING = ".evaluate.evl.lock"
log = logging.getLogger("evl")


@contextmanager
def held_for_scores(folder: Path | None) -> Iterator[None]:
    """Holds the folder that an evaluation is written to, from its start on; None: there is none. The first process of
    several holds it.

    Raises RunError if a run or another evaluation writes there. A folder that cannot be written to is not held, so that
    scores are shown even where they cannot be saved.
    """
    with ExitStack() as held:
        if folder is not None and is_main_process():
            refuse_held(folder / LOCK, folder)  # of a run, whose folder this may be
            with suppress(SaveError):
                held.enter_context(made_folder(folder))
                held.enter_context(hold_lock(folder / EVALUATING, folder))
        yield


def write_evaluation(
    folder: str | Path,
    evaluation: Evaluation,
    *,
    picture: bool = True,
    predictions: bool = True,
    outcome: Mapping | None = None,
) -> None:
    """``metrics.json``, ``confusion.csv``, and what is asked for: ``predictions.parquet`` (all scores of every video:
    ``read_predictions``) and ``confusion.png`` (drawing takes longer than the rest). ``outcome``: of the training, for
    ``metrics.json``."""
    folder, names = expand_home(Path(folder)), evaluation.class_names
    per_class = dict(zip(names, evaluation.metrics.class_accuracy(), strict=True))
    content = {**evaluation.to_dict(), "class_accuracy": per_class, "damaged": evaluation.damaged}
    content |= {} if outcome is None else {"outcome": outcome}
    files: dict[Path, str | bytes] = {}
    if predictions:
        files[folder / PREDICTIONS], content["predictions_id"] = predictions_bytes(evaluation)
    else:
        remove_file(folder / PREDICTIONS)  # of an earlier evaluation
    counts = zip(names, evaluation.metrics.confusion.tolist(), strict=True)
    rows = [["label \\ prediction", *names], *([name, *row] for name, row in counts)]
    files |= {folder / METRICS_FILE: json_bytes(content, indent=2), folder / "confusion.csv": table_text(rows)}
    write_together(files)
    if picture:  # last, because a picture may fail
        metrics = evaluation.metrics
        title = f"top-1 {metrics.top1:.1f} %  ·  chance {metrics.chance:.1f} %"
        with drawing(folder / "confusion.png"):
            draw_confusion(folder / "confusion.png", metrics.confusion, names, title, evaluation.protocol)


def draw_confusion(
    path: Path, counts: np.ndarray, class_names: Sequence[str], title: str, caption: str, *, unit: str = "videos"
) -> None:
    """The picture of ``counts[label, prediction]``; beside it ``confusion_names.txt``, only where class names are
    numbers in it. ``unit``: what is counted."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    named, numbered = len(counts) <= 40, path.with_name(f"{path.stem}_names.txt")
    names = lettering(class_names if named else ())
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    digits = 0 if np.issubdtype(counts.dtype, np.integer) else 1
    side, margin = min(16, 3 + 0.35 * len(counts)), names.width_inches
    figure = Figure(figsize=(side + 1 + margin, side + margin), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if named:
        axes.set_xticks(range(len(counts)), names.shown, rotation=90, **names.options)
        axes.set_yticks(range(len(counts)), names.shown, **names.options)
    if len(counts) <= 20:
        for y, row in enumerate(counts):
            for z, count in enumerate(row):
                if count:
                    color = "white" if shares[y, z] > 0.5 else "black"
                    axes.text(z, y, f"{count:.{digits}f}", ha="center", va="center", color=color)
    axes.set(xlabel="prediction", ylabel="label")
    figure.colorbar(image, label=f"share of the label's {unit}", shrink=0.8)
    if names.legend:
        caption += f"\n# and a number: a name that no font here can show, listed in {numbered.name}"
    save_picture(path, figure, title=title, caption=caption, dpi=100)
    if not names.legend:
        remove_file(numbered)  # of an earlier evaluation
        return
    write_file(numbered, "".join(f"{number}\t{name}\n" for number, name in names.legend.items()))
    count = len(names.legend)
    log.info(
        "%s: no installed font can show %s, such as %s: %s a number there, listed in %s",
        path, "a class name" if count == 1 else f"{count} class names", next(iter(names.legend.values())),
        "it is" if count == 1 else "each is", numbered.name,
    )  # fmt: skip
