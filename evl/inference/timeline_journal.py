"""What is done of a long timeline, so that the same call goes on where it was killed, with the same scores to the bit.

Bits depend on which frames were encoded together. So a call that goes on reads some batches again before the first one
that is missing: so many that all frames of that one, and what its decoder keeps of them, are as they would have been.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from evl._version import __version__
from evl.backbones.base import hash_weights
from evl.errors import SaveError
from evl.models import Classifier
from evl.runtime.files import append_json, make_folder, read_json_lines
from evl.streams import Batch
from evl.streams.windows import WindowStream
from evl.video.decode.missing import is_missing


class Journal:
    """A file in the folder ``work`` with the scores of each finished batch of windows of one video.

    Its name is a fingerprint of the video, the models and how they read it, so other work is never mistaken for it.
    """

    def __init__(self, work: Path, models: Sequence[Classifier], stream: WindowStream, batch_size: int):
        self.frames, self.batch_size, self.num_models = stream.windows.frames, batch_size, len(models)
        make_folder(work)
        self.path = work / f"{_fingerprint(models, stream, batch_size)}.jsonl"

    def read(self) -> tuple[list[dict[int, np.ndarray]], dict[int, str], int]:
        """(scores of each model, reasons for damaged windows, the number of batches that are done)."""
        scores: list[dict[int, np.ndarray]] = [{} for _ in range(self.num_models)]
        damaged: dict[int, str] = {}
        count = 0
        for row in read_json_lines(self.path):
            try:
                number, indices = int(row["batch"]), [int(index) for index in row["indices"]]
                values = [_unpacked(text, len(indices)) for text in row["scores"]]
                reasons = {int(index): str(reason) for index, reason in row["damaged"].items()}
            except (KeyError, TypeError, ValueError, AttributeError):
                break
            if number < count:  # read again by a call that went on
                continue
            if number > count or len(values) != self.num_models or not self._is_whole(number, {*indices, *reasons}):
                break
            for own, found in zip(scores, values, strict=True):
                own.update(zip(indices, found, strict=True))
            damaged |= reasons
            count += 1
        return scores, damaged, count

    def _is_whole(self, number: int, indices: set[int]) -> bool:
        start = number * self.batch_size
        return indices == set(range(start, min(start + self.batch_size, len(self.frames))))

    def add(self, batch: Batch, scores: list[list[np.ndarray]]) -> None:
        """Adds a batch, unless its video is missing for now. Raises SaveError."""
        if any(map(is_missing, batch.damaged.values())):
            return
        packed = [base64.b64encode(np.array(own, np.float64).tobytes()).decode() for own in scores]
        number = min((*batch.indices, *batch.damaged)) // self.batch_size
        content = {"batch": number, "indices": batch.indices, "scores": packed, "damaged": batch.damaged}
        append_json(self.path, content)

    def first_batch(self, num_done: int) -> int:
        """The batch to read first, so that those after ``num_done`` ones have the same bits as in one call."""
        size, frames = self.batch_size, self.frames
        if num_done * size >= len(frames):
            return num_done
        start, number = int(frames[num_done * size].min()), num_done
        while number > 0 and int(frames[number * size - 1].max()) >= start:
            number -= 1
        return max(0, number - 1)


def _unpacked(text: str, count: int) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text, validate=True), np.float64)
    return values.reshape(count, -1) if count else values.reshape(0, 0)


def _fingerprint(models: Sequence[Classifier], stream: WindowStream, batch_size: int) -> str:
    encoder, path = stream.frame_encoder, os.path.abspath(stream.path)
    try:
        info = os.stat(path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be read ({error.strerror or error})") from None
    facts = {
        "evl": __version__,
        "torch": [torch.__version__, torch.get_num_threads(), str(encoder.device)],
        "video": [path, info.st_size, info.st_mtime_ns],
        "frames": hashlib.sha256(np.ascontiguousarray(stream.windows.frames).tobytes()).hexdigest(),
        "models": [[model.encoder.weights_hash, hash_weights(model.trainable_state())] for model in models],
        "how": [repr(encoder.preprocessing), encoder.num_crops, encoder.precision, encoder.attention, batch_size],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
