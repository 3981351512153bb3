"""Shared by tests: where golden files lie, comparison, tiny backbones, made videos."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

GOLDEN = Path(__file__).parent / "golden"


def frame_range(path, start_seconds, end_seconds):
    """(first frame, number of frames) of the part [start, end) of a file."""
    from evl.video.decode.index import frame_index
    from evl.video.decode.reader import find_part

    return find_part(str(path), frame_index(str(path)), start_seconds, end_seconds)


def assert_close(got, wanted, *, relative=1e-5, floor=0.0):
    """Largest difference within ``relative`` of the largest wanted value (or within ``floor``)."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} != {tuple(wanted.shape)}"
    allowed = max(relative * wanted.abs().max().item(), float(floor))
    difference = (got - wanted).abs().max().item()
    assert difference <= allowed, f"differs by {difference:.3g}, allowed {allowed:.3g}"


def numbered_frames(count, height=64, width=96):
    """(count, height, width, 3) uint8: frame i shows i in binary as 8 black or white columns, on a moving grey."""
    import numpy as np

    frames = np.empty((count, height, width, 3), np.uint8)
    edges = np.linspace(0, width, 9).round().astype(int)
    for i in range(count):
        for bit in range(8):
            frames[i, :, edges[bit] : edges[bit + 1]] = 235 if i >> bit & 1 else 20
        frames[i, height // 2 :, :, 1] = 60 + i % 100  # something else that changes
    return frames


def number_of(frame):
    """The number a frame (3,H,W) of ``numbered_frames`` shows, read from its pixels."""
    columns = frame[0, : frame.shape[1] // 3].float().mean(0)
    width = len(columns)
    edges = torch.linspace(0, width, 9).round().int()
    bits = [columns[edges[b] + 2 : edges[b + 1] - 2].mean() > 128 for b in range(8)]
    return sum(int(bit) << b for b, bit in enumerate(bits))


def write_video(
    path, frames, *, codec="libx264", rate=25, options=None, times=None, pixel_format="yuv420p", container_options=None
):
    """Encode (F,H,W,3) uint8. ``times``: presentation times in ms, for a variable frame rate."""
    from fractions import Fraction

    import av
    import numpy as np

    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), times[i]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path, seconds=1):
    """A file with sound and no picture."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        samples = np.zeros((1, 44100 * seconds), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def run_command(capsys, *arguments):
    """(exit code, stdout, stderr) of a command line of evl, run in this process."""
    from evl.cli.main import main

    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def made_once(tmp_path_factory, name, make):
    """What ``make(folder)`` returns, something for JSON: made by the first process of the tests that asks for ``name``,
    read by the others and by later calls. For fixtures that take seconds, whose tests may run in several processes."""
    import json

    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    said = root / f"{name}.json"
    with FileLock(root / f"{name}.lock"):
        if not said.exists():
            shutil.rmtree(root / name, ignore_errors=True)  # of one that failed
            (root / name).mkdir()
            said.write_text(json.dumps(make(root / name)))
    return json.loads(said.read_text())


class Wanted:
    """A plan (``evl.video.plans``) by a function of the number of frames, for tests that listen to what it is told."""

    by_time = False

    def __init__(self, indices):
        self.indices = indices


def metrics_of(confusion):
    """``Metrics`` of videos that were counted: ``confusion[y, z]`` of class y, all sure to be z."""
    import numpy as np

    from evl.evaluation import Judged, compute_metrics

    confusion = np.asarray(confusion)
    labels, predicted = (numbers.repeat(confusion.ravel()) for numbers in np.indices(confusion.shape).reshape(2, -1))
    paths = tuple(f"{number}.mp4" for number in range(len(labels)))
    names = tuple(map(str, range(len(confusion))))
    return compute_metrics(Judged(paths, labels, predicted, np.eye(len(names))[predicted], names))
