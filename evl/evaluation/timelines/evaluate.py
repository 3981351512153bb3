"""Timelines of videos against their labeled segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from evl.errors import DataError, plural
from evl.evaluation.timelines.judged import SHARES, THRESHOLDS, JudgedTimelines, JudgedVideo
from evl.evaluation.timelines.matching import f1
from evl.evaluation.timelines.metrics import TimelineScores, class_precision, class_recall
from evl.evaluation.timelines.truth import check_labels, true_segments
from evl.inference.timeline import Gap, Timeline
from evl.runtime.text import cell
from evl.types import BACKGROUND, Sample


@dataclass(frozen=True, eq=False)
class TimelineEvaluation:
    """What timelines came to.

    ``metrics``: scores, such as ``metrics.map_50``. ``judged``: the true and found segments of each video.
    ``timelines``: in the same order. ``failed``: videos that could not be read, path → reason; they are part of no
    score. ``protocol``: one line that says how it was measured.
    """

    metrics: TimelineScores
    judged: JudgedTimelines
    timelines: tuple[Timeline, ...]
    protocol: str
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of events; background is none."""
        return self.judged.labels

    @property
    def damaged(self) -> dict[str, tuple[Gap, ...]]:
        """The stretches of videos that could not be read: path → stretches. They are no part of frame scores."""
        return {line.path: line.damaged for line in self.timelines if line.damaged}

    @property
    def is_whole(self) -> bool:
        return not self.failed and not self.damaged

    def classes(self) -> list[dict]:
        """A row of numbers for each class; None where there is none. Percent, and seconds."""
        judged, whole = self.judged, self.judged.whole
        counts = judged.counts[:, SHARES.index(0.5)].sum(0)
        precisions = whole.average_precisions[0]
        precision, recall = class_precision(whole.seconds)[0], class_recall(whole.seconds)[0]
        rows = []
        for y, label in enumerate(judged.labels):
            events = [one for _, one in judged.events if one.label == label]
            delays = [one.delay for one in events if np.isfinite(one.delay)]
            has_events = len(events) > 0
            rows.append(
                {
                    "class": label,
                    "events": len(events),
                    "found": sum(len([one for one in video.found if one.label == label]) for video in judged.videos),
                    "ap_50": _percent(precisions[y, THRESHOLDS.index(0.5)]),
                    "ap_mean": _percent(precisions[y].mean()),
                    "f1_50": float(f1(*counts[y])) if counts[y].any() else None,
                    "frame_precision": _percent(precision[y]) if has_events else None,
                    "frame_recall": _percent(recall[y]),
                    "events_found": 100 * len(delays) / len(events) if has_events else None,
                    "delay": float(np.median(delays)) if delays else None,
                }
            )
        return rows

    def videos(self) -> list[dict]:
        """A row of numbers for each video."""
        judged = self.judged
        counts = judged.counts[:, SHARES.index(0.5)].sum(1)
        rows = []
        for place, video in enumerate(judged.videos):
            seconds = judged.seconds[place]
            found = [one for one in video.events if np.isfinite(one.delay)]
            rows.append(
                {
                    "path": video.path,
                    "seconds": video.span[1] - video.span[0],
                    "events": len(video.events),
                    "events_found": 100 * len(found) / len(video.events) if video.events else None,
                    "found": len(video.found),
                    "f1_50": float(f1(*counts[place])),
                    "edit": float(judged.edits[place]),
                    "frame_accuracy": 100 * float(seconds.trace() / seconds.sum()) if seconds.sum() else None,
                }
            )
        return rows

    def table(self, num_classes: int = 20) -> Table:
        """A row for each class, the hardest first, at most ``num_classes``."""
        rows = sorted((one for one in self.classes() if one["events"]), key=lambda one: one["ap_50"])
        title = "hardest classes" if len(rows) > num_classes else None
        table = Table("class", "events", "found", "AP 0.5", "F1@50", "delay", title=title)
        for row in rows[:num_classes]:
            delay = "" if row["delay"] is None else f"{row['delay']:.2f} s"
            numbers = (str(row["events"]), str(row["found"]), f"{row['ap_50']:.0f} %", f"{row['f1_50']:.0f} %", delay)
            table.add_row(cell(row["class"]), *numbers)
        return table

    def to_dict(self) -> dict:
        judged = self.judged
        return {
            **self.metrics.to_dict(),
            "num_videos": len(judged.videos),
            "num_events": len(judged.events),
            "num_found": sum(len(one.found) for one in judged.videos),
            "seconds": float(sum(one.span[1] - one.span[0] for one in judged.videos)),
            "seconds_with_several_labels": float(judged.left_out.sum()),
            "num_failed": len(self.failed),
            "protocol": self.protocol,
        }


def evaluate_lines(
    lines: Sequence[Timeline],
    rows: Mapping[str, Sequence[Sample]],
    *,
    failed: Mapping[str, str] | None = None,
    note: str = "",
) -> TimelineEvaluation:
    """Judges timelines of the same classes by the labeled rows of their videos (``by_video``), in the same order.

    ``failed``: videos without a timeline. ``note``: the end of the protocol. Raises DataError where there is nothing to
    judge, or a label is no class.
    """
    if not lines:
        reason = "".join(f", such as {path}: {why}" for path, why in list((failed or {}).items())[:1])
        raise DataError(f"not one video could be read{reason}; there is no score, and nothing is written")
    names = lines[0].class_names
    check_labels([row for group in rows.values() for row in group], names)
    pairs = zip(lines, rows.values(), strict=True)
    videos = tuple(JudgedVideo.of(line, true_segments(line, group)) for line, group in pairs)
    judged = JudgedTimelines(videos, tuple(name for name in names if name != BACKGROUND))
    protocol = _protocol(lines, judged) + note
    return TimelineEvaluation(TimelineScores.of(judged), judged, tuple(lines), protocol, dict(failed or {}))


def _protocol(lines: Sequence[Timeline], judged: JudgedTimelines) -> str:
    """How a model saw the videos, without the number of windows, and how segments were found and counted."""
    parts = [part for part in lines[0].protocol.split(", ") if not part.endswith((" window", " windows"))]
    rules, num_events = lines[0].rules, len(judged.events)
    found = [f"smooth {rules.smooth}"] * (rules.smooth > 1)
    found += [f"merge {rules.merge_seconds:g} s"] * (rules.merge_seconds > 0)
    found += [f"at least {rules.min_seconds:g} s"] * (rules.min_seconds > 0)
    parts += [_thresholds(lines[0]), *found, plural(len(judged.videos), "video"), plural(num_events, "event")]
    if (seconds := float(judged.left_out.sum())) > 0:
        parts.append(f"{seconds:.1f} s with several labels are no part of frame scores")
    return ", ".join(parts)


def _thresholds(line: Timeline) -> str:
    on, off = line.rules.thresholds(line.class_names)
    if len(set(on)) == len(set(off)) == 1:
        return f"on {on[0]:g}, off {off[0]:g}"
    return f"on {on.min():g} to {on.max():g} and off {off.min():g} to {off.max():g} by class"


def _percent(share: float) -> float | None:
    return 100 * float(share) if np.isfinite(share) else None
