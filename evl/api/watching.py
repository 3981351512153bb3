"""Cameras, streams, pipes, files and folders → events, while they happen."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from evl.api.models import AnyPath, open_model, refuse_unknown
from evl.errors import ConfigError
from evl.inference.live import Live
from evl.inference.reading import card_of
from evl.inference.segments import Threshold
from evl.inference.timeline import rules_of
from evl.saving import VideoClassifier
from evl.watching.address import PIPE, parse_source
from evl.watching.loop import Watch
from evl.watching.opening import Settings
from evl.watching.webhook import Webhook

log = logging.getLogger("evl")
Source = str | int | os.PathLike


def watch(
    model: VideoClassifier | AnyPath,
    sources: Source | Sequence[Source],
    *,
    every_seconds: float | None = None,
    every_frames: int | None = None,
    stride_rate: float | None = None,
    window_seconds: float | None = None,
    memory: float | None = None,
    on: Threshold | None = None,
    off: Threshold | None = None,
    smooth: int | None = None,
    merge_seconds: float | None = None,
    min_seconds: float | None = None,
    scores: bool = False,
    webhook: str | None = None,
    follow: bool = False,
    new_only: bool = False,
    leave_out: bool | None = None,
    timeout: float = 10.0,
    retries: int | None = None,
    num_crops: int | None = None,
    device: str | None = None,
    **sizes: Any,
) -> Watch:
    """What a model sees in sources that have no end: an iterator of events (``evl.watching.events.Event``).

        with evl.watch("runs/mine", ["rtsp://door/1", 0], on=0.6) as events:
            for event in events: print(event.source, event.kind, event.label, event.seconds)

    Args:
        model: a model, or the folder of a run (or owner/name on the hub), which ``evl.load`` loads.
        sources: one or several of: a camera (its number, or ``/dev/video0``), an address (rtsp, http, udp, …), ``-``
            for standard input, a file, a folder into which files are put.
        every_seconds, every_frames, window_seconds, memory, num_crops: as for ``evl.Live``.
        stride_rate: for models with a stride: the rate of the videos that it is meant for, in frames per second
            (``frames_per_second`` of ``evl.Live``). None: frames are counted.
        on, off, smooth, merge_seconds, min_seconds: how segments are found, as for ``evl.timelines``.
        scores: also events with the scores of each window.
        webhook: an address, http or https, to which events but scores are posted as JSON.
        follow: files grow: at their end more is waited for, for ``timeout`` seconds.
        new_only: files that are in a folder already are left out.
        leave_out: whether frames are left out if the model is too slow; None: of cameras and addresses.
        timeout: seconds without data after which a source counts as broken.
        retries: how often in a row a source is opened again in vain; None: without end.
        sizes: as for ``evl.load``.

    Raises ConfigError for arguments that do not go together, and for a source that cannot be one.
    """
    refuse_unknown(sizes)
    given = dict(on=on, off=off, smooth=smooth, merge_seconds=merge_seconds, min_seconds=min_seconds)
    addresses = [parse_source(one, follow=follow) for one in _listed(sources)]
    for number, address in enumerate(addresses):
        if address.shown in [other.shown for other in addresses[:number]]:
            raise ConfigError(f"{address.shown}: is given twice; each source needs a name of its own")
    if not 0.1 <= timeout <= 86400:
        raise ConfigError(f"`timeout={timeout:g}`: expected seconds, from 0.1 to 86400")
    if retries is not None and retries < 0:
        raise ConfigError(f"`retries={retries}`: expected a number from 0")
    model = open_model(model, device, sizes)
    if not model.class_names:
        raise ConfigError("this model has no class names; events need them")
    rules = rules_of(model, {name: value for name, value in given.items() if value is not None})
    if model.card.segment_rules is not None and on is None:
        log.info("thresholds of segments are those of the model, chosen on %s", model.card.rules_chosen_on)
    windows = dict(every_seconds=every_seconds, every_frames=every_frames, window_seconds=window_seconds)

    def make_live() -> Live:
        return Live(model, **windows, frames_per_second=stride_rate, num_crops=num_crops, memory=memory)

    try:
        make_live()  # wrong arguments are refused before anything is opened
    except ConfigError as error:
        raise ConfigError(str(error).replace("`frames_per_second", "`stride_rate")) from None
    return Watch(
        addresses,
        make_live,
        tuple(model.class_names),
        rules,
        Settings(timeout, card_of(model).preprocessing.pixel_aspect),
        scores=scores,
        webhook=None if webhook is None else Webhook(webhook),
        leave_out=leave_out,
        retries=retries,
        new_only=new_only,
    )


def _listed(sources: Source | Sequence[Source]) -> Sequence[Source]:
    if isinstance(sources, str | int | os.PathLike):
        sources = [sources]
    if not sources:
        raise ConfigError(f"expected a source: a camera's number, an address, {PIPE}, a file or a folder")
    return sources
