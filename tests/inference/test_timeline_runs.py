"""Several models in one pass, and timelines that go on after they were killed."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import evl
from evl.errors import ConfigError
from evl.inference.timeline import plan_for, timelines_of
from evl.types import Sample
from tests.helpers import write_video
from tests.inference.test_timeline import film, untrained  # noqa: F401  (a fixture)


@pytest.fixture
def encoded(monkeypatch):
    """The numbers of frames that pass the encoder, call by call."""
    from evl.streams.windows import FrameEncoder

    seen, encode = [], FrameEncoder.encode
    monkeypatch.setattr(FrameEncoder, "encode", lambda self, views: seen.append(len(views)) or encode(self, views))
    return seen


def test_models_with_one_encoder(film, encoded, tmp_path):  # noqa: F811
    """A decoder of two blocks, one of the deepest, and one without maps: as each alone, each frame encoded once."""
    models = [untrained(), untrained({"decoder": "linear"}), untrained({"decoder": "side", "side_width": 16})]
    found = evl.timelines(models, film, out=tmp_path / "out", progress=False)
    assert sum(encoded) == 21
    assert [line.run for line in found.timelines] == ["model", "model-2", "model-3"]
    for model, line in zip(models, found.timelines, strict=True):
        np.testing.assert_allclose(line.scores, evl.timeline(model, film).scores, atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "model-2", "model-3"]
    assert (tmp_path / "out/model-3/segments.csv").is_file()


@pytest.mark.parametrize("size", [32, 48])
def test_models_of_different_blocks(film, encoded, size):  # noqa: F811
    """No model reads all blocks: the encoder is tapped at all that some model reads, and runs once."""
    taps, own = [[3, 5], [2, 3], [0, 4]], {"backbone": {"image_size": size}}
    models = [
        untrained({"taps": some} | ({"decoder": "side", "side_width": 16} if 0 in some else {}), **own) for some in taps
    ]
    found = evl.timelines(models, film, progress=False)
    assert sum(encoded) == 21
    for model, line, some in zip(models, found.timelines, taps, strict=True):
        np.testing.assert_allclose(line.scores, evl.timeline(model, film).scores, atol=1e-6)
        assert list(model.backbone.taps) == some


def test_models_that_cannot_share_frames(film):  # noqa: F811
    usual = untrained()
    for other, reason in (
        (untrained(clip={"num_frames": 3}), "sample other frames"),
        (untrained(evaluation={"num_crops": 3}), "number of crops"),
        (untrained(backbone={"image_size": 64}), "preprocessing"),
    ):
        with pytest.raises(ConfigError, match=reason):
            evl.timelines([usual, other], film, progress=False)
    with pytest.raises(ConfigError, match="exists already"):
        evl.timelines(usual, film, overlay=film, progress=False)
    with pytest.raises(ConfigError, match=r"evl\.timelines"):
        evl.timeline([usual, usual], film)


class Killed(Exception):
    pass


def dying(after):
    done = 0

    def progress(count, total):
        nonlocal done
        done += count
        if done >= after:
            raise Killed

    return progress


def test_goes_on_with_the_same_bits(film, encoded, tmp_path):  # noqa: F811
    models = [untrained(), untrained({"decoder": "linear"})]
    call = dict(plan=plan_for(models[0]), batch_size=3)
    whole = timelines_of(models, Sample(film), **call)
    num_frames = sum(encoded)
    for moment in (1, 7, 12, 18):
        work = tmp_path / str(moment)
        with pytest.raises(Killed):
            timelines_of(models, Sample(film), **call, work=work, progress=dying(moment))
        (file,) = work.iterdir()
        if moment == 7:  # killed while it wrote
            file.write_bytes(file.read_bytes()[:-20])
        encoded.clear()
        again = timelines_of(models, Sample(film), **call, work=work)
        assert sum(encoded) == {1: num_frames, 7: num_frames, 12: 15, 18: 0}[moment]
        for one, other in zip(whole, again, strict=True):
            assert one.scores.tobytes() == other.scores.tobytes()
            assert one.segments == other.segments


def test_only_the_same_work_is_gone_on_with(film, encoded, tmp_path):  # noqa: F811
    model = untrained()
    call = dict(batch_size=6, work=tmp_path / "work")
    timelines_of([model], Sample(film), plan_for(model), **call)
    encoded.clear()
    timelines_of([model], Sample(film), plan_for(model), **call)
    assert not encoded
    timelines_of([model], Sample(film), plan_for(model, every_frames=2), **call)
    assert encoded
    encoded.clear()
    model.head.linear.bias.data += 1
    timelines_of([model], Sample(film), plan_for(model), **call)
    assert encoded
    for file in (tmp_path / "work").iterdir():  # lines that are no batches are no batches
        file.write_text(json.dumps({"batch": 0, "indices": [0], "scores": ["!"], "damaged": {}}) + "\n")
    encoded.clear()
    timelines_of([model], Sample(film), plan_for(model), **call)
    assert encoded


def test_a_killed_call_leaves_what_is_done_beside_its_folder(film, tmp_path):  # noqa: F811
    model, out, reports = untrained(), tmp_path / "out", []
    fail = dying(4)
    with pytest.raises(Killed):
        evl.timelines(model, film, out=out, batch_size=5, progress=lambda report: fail(report.step, 0))
    assert [path.name for path in tmp_path.iterdir()] == [".out.evl.work"]
    evl.timelines(model, film, out=out, batch_size=5, progress=reports.append)
    assert reports[0].step in (0, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_command_that_is_killed_again_and_again(finished_run, tmp_path):
    """kill -9 in the middle of the file, three times; then the command ends as if nothing had been."""
    noise = np.random.default_rng(0).integers(0, 255, (150, 5, 7, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    path = write_video(tmp_path / "film.mp4", noise)
    (tmp_path / "made").mkdir()

    def command(out):
        options = ("--every-frames", "1", "--batch-size", "4", "--format", "webvtt", "--device", "cpu")
        return [sys.executable, "-m", "evl", "timeline", finished_run, path, "--out", tmp_path / "made" / out, *options]

    def lines_of(out):
        return sum(one.read_bytes().count(b"\n") for one in (tmp_path / "made").glob(f".{out}.evl.work/*.jsonl"))

    whole = subprocess.run(command("whole"), capture_output=True, text=True, check=True)
    kills = []
    for moment in (1, 10, 25):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and lines_of("killed") < moment:
            time.sleep(0.005)
        process.kill()
        kills.append((process.wait(), lines_of("killed")))
    assert [code for code, _ in kills] == [-signal.SIGKILL] * 3
    assert [lines < 37 for _, lines in kills] == [True] * 3, kills
    again = subprocess.run(command("killed"), capture_output=True, text=True, check=True)
    assert re.search(r"goes on after \d+ of 146 windows", " ".join(again.stderr.split()))
    assert again.stdout.replace("made/killed", "made/whole") == whole.stdout
    files = {one.name: one.read_bytes() for one in (tmp_path / "made/whole").iterdir()}
    assert len(files) == 3
    assert {one.name: one.read_bytes() for one in (tmp_path / "made/killed").iterdir()} == files
    assert sorted(one.name for one in (tmp_path / "made").iterdir()) == ["killed", "whole"]
