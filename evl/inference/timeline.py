"""Long videos → timelines: the scores of windows along the video, and the segments found in them.

A timeline is read by the judging loop (``reading``), as all scores are: its stream has a sample for each window. The
scores of a window are those of ``model.scores`` for the same frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evl.backbones import FrozenBackbone, create_backbone
from evl.data.dataset import spacing_of
from evl.errors import ConfigError, VideoError, plural
from evl.inference.reading import Reader, card_of, evaluating, evaluation_of, judging_precision, read, scores_of
from evl.inference.segments import Segment, SegmentRules, find_segments
from evl.inference.timeline_journal import Journal
from evl.models import Classifier
from evl.models.side_windows import SideWindowDecoder
from evl.models.windows import WindowDecoder, WindowFeatures
from evl.runtime.distributed import World
from evl.runtime.import_path import is_import_path
from evl.streams.base import Features
from evl.streams.windows import FrameEncoder, WindowStream
from evl.types import Sample
from evl.video.decode.forward import OtherFramesError
from evl.video.decode.index import FrameIndex, frame_index
from evl.video.decode.missing import read_patiently
from evl.video.decode.reader import find_part
from evl.video.sampling import MICROSECONDS, microseconds
from evl.video.windows import WindowPlan, Windows

log = logging.getLogger("evl")
SHARING = WindowDecoder, SideWindowDecoder  # what windows share of a decoder's work
WINDOWS_AT_ONCE = {"cpu": 8, "cuda": 64}  # for decoders; fewer need less memory


class Gap(NamedTuple):
    """A stretch of a video, in seconds, of whose windows there are no scores, and the reason."""

    start_seconds: float
    end_seconds: float
    reason: str


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a model sees when, in one video.

    Args:
        path: the video.
        times: (n) the middle of each window, in seconds from the file's first frame.
        scores: (n,Y) softmax of each window, averaged over its crops; not smoothed.
        frames: (n,T) the numbers of each window's frames in the file, from 0.
        class_names: Y names.
        segments: the labeled stretches of time that ``rules`` find in the scores, in the order of their starts.
        rules: how the segments were found.
        start_seconds, end_seconds: what the windows cover: the file, or the part of it that was read.
        frames_per_second: the mean rate of the file; 0 if it is not known.
        damaged: the stretches without scores.
        protocol: how the windows were shown to the model, on one line.
        ends: (n) the time of each window's last frame, in seconds: a live source has its scores then. None: not known.
        run: the folder of the model, where several models made timelines together.
    """

    path: str
    times: np.ndarray
    scores: np.ndarray
    frames: np.ndarray
    class_names: tuple[str, ...]
    segments: tuple[Segment, ...] = ()
    _: KW_ONLY
    rules: SegmentRules = field(default_factory=SegmentRules)
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    frames_per_second: float = 0.0
    damaged: tuple[Gap, ...] = ()
    protocol: str = ""
    ends: np.ndarray | None = None
    run: str = ""

    def with_rules(self, rules: SegmentRules) -> Timeline:
        """The same scores with the segments that ``rules`` find in them."""
        ends = dict(start_seconds=self.start_seconds, end_seconds=self.end_seconds)
        ends["gaps"] = [gap[:2] for gap in self.damaged]
        found = find_segments(self.times, self.scores, self.class_names, rules, **ends)
        return replace(self, segments=found, rules=rules)


def plan_for(
    model: Classifier,
    *,
    every_seconds: float | None = None,
    every_frames: int | None = None,
    window_seconds: float | None = None,
) -> WindowPlan:
    """The windows of the model's own frames (``evl.video.windows``). Raises ConfigError."""
    return WindowPlan(spacing_of(card_of(model).config.clip), every_seconds, every_frames, window_seconds)


def rules_of(model: Classifier, given: Mapping[str, object] = MappingProxyType({})) -> SegmentRules:
    """The rules that are kept with the model (thresholds chosen on validation videos), or the usual ones, changed by
    the fields ``given``."""
    own = card_of(model).segment_rules
    rules = SegmentRules() if own is None else SegmentRules.from_dict(own).only(model.class_names)
    return rules.changed(given)


def encoder_for(model: Classifier, num_crops: int | None = None) -> FrameEncoder:
    """The model's encoder for single frames, with the model's own crops, or ``num_crops`` of them."""
    return shared_encoder([model], num_crops)


def shared_encoder(models: Sequence[Classifier], num_crops: int | None = None) -> FrameEncoder:
    """The encoder of several models for single frames. Raises ConfigError for models that cannot share one.

    It is that of the model whose tapped blocks include those of all others, or a copy that is tapped at all of them.
    """
    facts = [
        (
            model.require_backbone().weights_hash,
            card_of(model).preprocessing,
            evaluation_of(model, num_crops=num_crops).num_crops,
            judging_precision(model),
        )
        for model in models
    ]
    names = ("encoder", "preprocessing", "number of crops", "precision")
    for other in facts[1:]:
        if unlike := [name for name, one, own in zip(names, other, facts[0], strict=True) if one != own]:
            raise ConfigError(
                f"the models differ in {' and '.join(unlike)}, so they cannot share frames; run each alone"
            )
    taps = sorted({block for model in models for block in model.encoder.taps})
    owner = next((model for model in models if list(model.encoder.taps) == taps), None)
    backbone = _tapped_at(taps, models[0]) if owner is None else owner.require_backbone()
    attention = any(map(reads_attention, models))
    return FrameEncoder(backbone, facts[0][1], facts[0][2], facts[0][3], attention)


def _tapped_at(taps: Sequence[int], model: Classifier) -> FrozenBackbone:
    """A copy of the model's encoder that is tapped at these blocks."""
    own = model.require_backbone()
    made = create_backbone(card_of(model).config.backbone, taps, state=own.state_dict())
    made._hash, made.frames_at_once = own.weights_hash, own.frames_at_once
    return made.to(next(own.parameters()))


def reads_attention(model: Classifier) -> bool:
    """Whether the model reads the encoder's queries and keys, or maps of them. Decoders from outside may."""
    return model.reads_query_key or model.reads_maps or is_import_path(card_of(model).config.model.decoder)


def window_scores_of(model: Classifier, at_once: int | None = None) -> Reader:
    """A reader as ``scores_of``, for windows that share frames: an EVL decoder computes once what they have in common.

    It keeps that from batch to batch, for the windows that follow. ``at_once``: how many windows the decoder reads
    together; None: ``WINDOWS_AT_ONCE`` of the device.
    """
    attention, usual = reads_attention(model), scores_of(model)
    shared = next((one(model.decoder) for one in SHARING if one.can_read(model.decoder)), None)

    def some(features: Sequence[WindowFeatures]) -> Tensor:
        if shared is None:
            return usual.of([one.clips(attention) for one in features])
        logits = model.head(shared(features))
        if model.zero_shot is not None:
            logits = model.zero_shot([one.clips(False) for one in features]) + logits
        return logits.double().softmax(-1)

    def scores(features: Features) -> Tensor:
        if not isinstance(features[0], WindowFeatures):
            return usual.of(features)
        size = at_once or WINDOWS_AT_ONCE.get(features[0].tokens.device.type, 8)
        parts = [slice(start, start + size) for start in range(0, len(features[0]), size)]
        return torch.cat([some([one.windows(part) for one in features]) for part in parts])

    return Reader(scores, usual.blocks)  # windows share neighbor maps as they share frames


def timeline_of(
    model: Classifier, sample: Sample, plan: WindowPlan, rules: SegmentRules | None = None, **how
) -> Timeline:
    """The timeline of one model: ``timelines_of`` with its options."""
    return timelines_of([model], sample, plan, None if rules is None else [rules], **how)[0]


def timelines_of(
    models: Sequence[Classifier],
    sample: Sample,
    plan: WindowPlan,
    rules: Sequence[SegmentRules] | None = None,
    *,
    encoder: FrameEncoder | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] = lambda count, total: None,
    work: Path | None = None,
) -> list[Timeline]:
    """The timelines of a video, or of the part of it that ``sample`` means: one for each model, in one pass.

    ``encoder``: None for ``shared_encoder`` of the models. ``batch_size``: windows at a time; None for the number of
    views in a batch of evaluation. ``progress(n, total)`` is called with the number of newly finished windows.
    ``work``: a folder for what is done so far; the same call goes on with it, with the same results. Raises VideoError
    if the video cannot be used, or if not one of its windows can.
    """
    rules = rules or [SegmentRules()] * len(models)
    for own, model in zip(rules, models, strict=True):
        own.thresholds(model.class_names)  # wrong rules are refused before hours of work
    encoder = encoder or shared_encoder(models)
    usual = evaluation_of(models[0], batch_size=batch_size)
    size = batch_size or usual.batch_size * usual.num_clips
    index = read_patiently(lambda: frame_index(sample.path))
    for _ in range(2):
        windows, part = windows_of(sample, index, plan)
        stream = WindowStream(encoder, sample.path, index, windows)
        try:
            results, damaged = _read(models, stream, size, progress, work)
            break
        except OtherFramesError as error:
            index = error.index
    else:
        raise AssertionError("a counted index is never wrong")
    if not results[0]:
        raise VideoError(sample.name, next(iter(damaged.values())))
    chosen = np.array(sorted(results[0]))
    ends = np.asarray(index.times_seconds, np.float64)[windows.frames[chosen, -1]] - float(index.times_seconds[0])
    lines = []
    for model, own, scores in zip(models, rules, results, strict=True):
        line = Timeline(
            sample.path,
            windows.times[chosen] / MICROSECONDS,
            np.stack([scores[place] for place in chosen.tolist()]),
            windows.frames[chosen],
            tuple(model.class_names) or tuple(map(str, range(len(scores[int(chosen[0])])))),
            start_seconds=part[0],
            end_seconds=part[1],
            frames_per_second=_mean_rate(index),
            damaged=_gaps(windows.times / MICROSECONDS, damaged, part),
            protocol=_protocol(model, encoder, plan, len(chosen)),
            ends=ends,
        )
        lines.append(line.with_rules(own))
    return lines


def _read(
    models: Sequence[Classifier],
    stream: WindowStream,
    size: int,
    progress: Callable[[int, int], None],
    work: Path | None,
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    """(for each model the scores of the windows that could be read, reasons for the others); kept in ``work``."""
    total = len(stream.samples)
    journal = None if work is None else Journal(work, models, stream, size)
    known, reasons, num_done = ([{} for _ in models], {}, 0) if journal is None else journal.read()
    if num_done:
        log.info("%s: goes on after %d of %d windows", stream.path, min(num_done * size, total), total)
    again = 0 if journal is None else journal.first_batch(num_done)
    if again:
        progress(min(again * size, total), total)
    keep = {} if journal is None else {"after": journal.add}
    with evaluating(models):
        results, damaged = read(
            stream,
            [window_scores_of(model) for model in models],
            batch_size=size,
            world=World(0, 1, stream.device),
            progress=lambda count: progress(count, total),
            skip=again,
            **keep,
        )
    return [own | before for own, before in zip(results, known, strict=True)], dict(sorted((damaged | reasons).items()))


def windows_of(sample: Sample, index: FrameIndex, plan: WindowPlan) -> tuple[Windows, tuple[float, float]]:
    """(the windows of a sample, with frame numbers and times of the whole file; where it starts and ends, in seconds).

    Raises VideoError if the part that the sample means has no frame.
    """
    first, count = find_part(sample.path, index, sample.start_seconds, sample.end_seconds)
    whole = microseconds(index.times_seconds)
    times = whole[first : first + count]
    windows = plan.windows(times - times[0])
    usual = float(np.median(np.diff(whole))) if len(whole) > 1 else 0.0
    part = float(times[0]) / MICROSECONDS, (float(times[-1]) + usual) / MICROSECONDS
    return Windows(windows.frames + first, windows.times + times[0]), part


def _mean_rate(index: FrameIndex) -> float:
    times = index.times_seconds
    length = float(times[-1] - times[0])
    return round((len(times) - 1) / length, 6) if length > 0 else 0.0


def _gaps(times: np.ndarray, damaged: dict[int, str], part: tuple[float, float]) -> tuple[Gap, ...]:
    """Damaged windows that follow each other as stretches of time: each stands for half the way to its neighbors."""
    borders = [part[0], *((times[:-1] + times[1:]) / 2).tolist(), part[1]]
    gaps: list[Gap] = []
    for place, reason in sorted(damaged.items()):
        start, end = borders[place], borders[place + 1]
        if gaps and gaps[-1].end_seconds == start:
            gaps[-1] = gaps[-1]._replace(end_seconds=end)
        else:
            gaps.append(Gap(start, end, reason))
    return tuple(gaps)


def _protocol(model: Classifier, encoder: FrameEncoder, plan: WindowPlan, num_windows: int) -> str:
    line = card_of(model).protocol(1, 1, encoder.num_crops, encoder.precision).rpartition(", ")[0]
    length = f" of {plan.seconds:g} s" if plan.spacing.sampling == "segment" else ""
    every = "sampled frame"
    if plan.every_seconds is not None:
        every = f"{plan.every_seconds:g} s"
    elif plan.every_frames is not None:
        every = plural(plan.every_frames, "frame")
    return f"{line}, {plural(num_windows, 'window')}{length}, one every {every}"
