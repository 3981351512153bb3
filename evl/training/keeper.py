"""Keeps a training in its folder while it runs: checkpoints, curves, damaged videos, the best model so far."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Set

from evl.config import RunConfig
from evl.data.splits import is_missing, stop_if_too_many
from evl.errors import DataError, RunError
from evl.evaluation import Evaluation
from evl.runtime.distributed import World
from evl.runtime.out_folder import build_folder
from evl.runtime.progress import Progress, Report
from evl.saving import save_model
from evl.streams import Stream
from evl.training.checkpoint import list_checkpoints, load_checkpoint, remove_old, save_checkpoint
from evl.training.curves import Curves
from evl.training.learners import Learners
from evl.training.loop import Interrupted, Keeper, Speed
from evl.training.run_folder import RunFolder

log = logging.getLogger("evl")
AWAY_SECONDS = 60.0  # how long a run goes on while too many videos are missing
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.25, 4.0  # between steps of which all videos are missing


class RunKeeper(Keeper):
    """Keeps a training in ``folder``. Only the first process writes.

    Args:
        damaged: path → reason; damaged videos are added to it.
        moved: old path → new path, for videos that were moved since the checkpoint.
        judge: ``judge(progress)`` evaluates the learner's model on the validation videos; None: no validation while
            training.
        log_curve: whether reports go to ``metrics.jsonl`` and TensorBoard (only with one learner).
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        stream: Stream,
        world: World,
        damaged: dict[str, str],
        *,
        resume: bool,
        moved: Mapping[str, str] | None = None,
        judge: Callable[[Report], Evaluation] | None = None,
        log_curve: bool = True,
        keep_last: int | None = None,
        progress: Report = lambda report: None,
    ):
        self.folder, self.config, self.stream, self.world = folder, config, stream, world
        self.damaged, self.resumes, self.judge, self.progress = damaged, resume, judge, progress
        self.log_curve, self._curves = log_curve, None
        self.best, self.selected = math.inf, None  # ``Score.rank`` of the best model so far, and its step in words
        self._has_warned, self._is_listed = False, (folder.path / "damaged.csv").exists()
        self._back: set[str] = set()  # missing videos that were read again, since the lists were last exchanged
        self._away_since: float | None = None  # since when too many are missing
        self._pause = FIRST_PAUSE_SECONDS
        self.moved, self.keep_last = moved or {}, keep_last or config.training.keep_last
        self.where = f": see {folder.path / 'damaged.csv'}"

    def resume(self, learners: Learners) -> int:
        if not self.resumes:
            return 0
        first = 0
        if saved := list_checkpoints(self.folder.checkpoints):
            state = load_checkpoint(saved[-1], learners, self.world)
            first, self.best, self.selected = state["step"], state["best"], state["selected"]
            # which files are missing is looked at anew
            before = {self.moved.get(path, path): why for path, why in state["damaged"].items() if not is_missing(why)}
            self.damaged.update(before)
        if self.world.is_main:
            self.folder.forget_after(first)
            remove_old(self.folder.checkpoints, self.keep_last)  # a run may have died before it did this
            if self.log_curve:
                self._curves = self._new_curves(purge_step=first + 1)
            log.info("resuming at step %d of %d", first, self.config.training.steps)
        return first

    def watch(
        self, learners: Learners, damaged: dict[int, str], read: Set[int], done: int, *, everywhere: bool
    ) -> None:
        """Notes damaged videos and writes their list: a single process at once, several at each report.

        A missing video is taken off the list when it is read again. Raises RunError, after a checkpoint is saved, if
        too many are damaged, or if too many stay missing for ``AWAY_SECONDS`` or at the end.
        """
        new = {self.stream.samples[index].path: why for index, why in damaged.items()}
        self.damaged.update(new)
        paths = {self.stream.samples[index].path for index in read} if self.damaged else set()
        back = {path for path in paths if is_missing(self.damaged.get(path, ""))}
        self._back |= back
        self._wait_if_all_are_away(new, read)
        if not (everywhere or ((new or back) and self.world.size == 1)):
            return
        self._gather_damage()
        if self.world.is_main and (self.damaged or self._is_listed):
            self.folder.write_damaged(self.damaged)
            self._is_listed = bool(self.damaged)
        try:
            broken = {path: why for path, why in self.damaged.items() if not is_missing(why)}
            stop_if_too_many(broken, self.stream.samples, self.config)
            self._stop_if_away_for_long(is_last=done == self.config.training.steps)
        except RunError:
            self.save(learners, done)  # so that the run can go on after the limit is raised
            raise

    def _wait_if_all_are_away(self, new: Mapping[str, str], read: Set[int]) -> None:
        """Waits a growing time if all videos of this step are missing: a step without a clip is over in no time."""
        if read or not new or not all(map(is_missing, new.values())):
            self._pause = FIRST_PAUSE_SECONDS
            return
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LAST_PAUSE_SECONDS)

    def _stop_if_away_for_long(self, *, is_last: bool) -> None:
        try:
            stop_if_too_many(self.damaged, self.stream.samples, self.config)
            self._away_since = None
        except RunError as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
                log.warning("%s (the run waits for them, at most %g s)", error, AWAY_SECONDS)
            if any(self.world.gather(is_last or time.monotonic() - self._away_since > AWAY_SECONDS)):
                raise

    def report(self, learners: Learners, done: int, speed: Speed) -> str:
        if self.log_curve and learners.all[0].has_point(done):
            ((_, lr, loss, top1),) = [learner.curve[-1] for learner in learners.living]
            values = {"loss": loss, "train_top1": top1, **vars(speed)}
            self._log({"step": done, "lr": lr, "num_damaged": len(self.damaged), **values})
        if not self._has_warned and self.world.is_main:
            self._has_warned = True
            for notice in self.stream.notices():
                log.warning("among the training videos read so far, %s", notice)
        damaged = f"damaged {len(self.damaged)}  " if self.damaged else ""
        return super().report(learners, done, speed) + damaged

    def validate(self, learners: Learners, done: int, stop_requested: Callable[[], bool]) -> None:
        """Judges the model on the validation videos, and saves it to ``best`` if it is the best so far."""
        if self.judge is None:
            return

        def progress(report: Progress) -> None:
            self.progress(report)
            if stop_requested() and self.world.size == 1:
                raise Interrupted

        try:
            result = self.judge(progress)
        except Interrupted:
            log.warning("the validation of step %d is skipped", done)
            return
        except DataError as error:
            log.warning("the validation of step %d has no score: %s", done, error)
            return
        self._log({"step": done, **{f"val_{name}": value for name, value in result.metrics.values().items()}})
        score = result.metrics.scores[self.config.training.select_by]
        log.info("step %d: val %s %s (%s)", done, score.metric.title, score.text(2), result.protocol)
        if math.isinf(score.rank):
            log.warning("step %d cannot be best/: it has no %s", done, score.metric.title)
        if score.rank < self.best:
            self.best, self.selected = score.rank, f"step {done}, the best by {score.metric.title} of these videos"
            if self.world.is_main:
                scores = {**result.to_dict(), "protocol": f"{result.protocol}, {self.selected}"}
                with build_folder(self.folder.path / "best", replace=True) as best:
                    save_model(learners.all[0].model, best, scores=scores)

    def save(self, learners: Learners, done: int) -> None:
        self._gather_damage()
        if len(learners.all) == 1 and not learners.all[0].is_finite():
            raise RunError(f"weights are not finite after step {done}, not saved; lower training.lr")
        if self.world.is_main:
            more = dict(best=self.best, selected=self.selected, damaged=self.damaged)
            save_checkpoint(self.folder.checkpoints, done, learners, keep_last=self.keep_last, **more)

    def _gather_damage(self) -> None:
        everyone = self.world.gather((dict(self.damaged), set(self._back)))
        for damaged, _ in everyone:
            self.damaged.update(damaged)
        for path in set().union(*(back for _, back in everyone)):
            if is_missing(self.damaged.get(path, "")):
                del self.damaged[path]
        self._back.clear()

    def _log(self, values: dict) -> None:
        if not self.world.is_main:
            return
        self.folder.log(values)
        self._curves = self._curves or self._new_curves()
        self._curves.add(values["step"], {name: value for name, value in values.items() if name != "step"})

    def _new_curves(self, **options: int) -> Curves:
        return Curves(self.folder.path / "tensorboard", **options)
