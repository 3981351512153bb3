"""Curves of a run for TensorBoard."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from evl.errors import SaveError


class Curves:
    """A new file of events in ``folder``, the only one of this process; TensorBoard joins it with those before.

    It is written in the calling thread. (The writer of torch has a thread of its own, in which a full disk is a
    traceback and no error.) ``purge_step``: points from this step on that older files have are not shown any more.

    Raises SaveError if the system cannot write.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # the time comes first, and in microseconds, because TensorBoard reads the files in the order of their names
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._write(events)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds a point at ``step`` to each curve that has a value."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=float(one)) for name, one in values.items() if one is not None]
        self._write([Event(wall_time=time.time(), step=step, summary=Summary(value=points))])

    def _write(self, events: list) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(event.SerializeToString())
        try:
            self.path.parent.mkdir(exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                if file.write(records.getbuffer()) < records.tell():
                    raise OSError("only a part of it")
        except OSError as error:
            raise SaveError(f"{self.path} could not be written ({error.strerror or error})") from error
