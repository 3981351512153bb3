"""What is known of files, kept on disk: used as long as it is true."""

import os

import pyarrow
import pytest
import torch
from pyarrow import feather

from evl.collections.check import check_samples
from evl.config import AugmentConfig, ClipConfig
from evl.data.dataset import Files, TrainingClips
from evl.data.index_file import IndexFile, write_index
from evl.errors import DataError
from evl.types import Preprocessing, Sample
from evl.video.augment import TrainingTransform
from evl.video.decode import index as video_index
from evl.video.decode import reader
from tests.helpers import numbered_frames, run_command, write_video


@pytest.fixture
def samples(tmp_path):
    names = {"a.mp4": {}, "b.mkv": {}, "vp6.mpg": dict(codec="mpeg2video")}  # the last must be counted
    return [Sample(str(write_video(tmp_path / n, numbered_frames(40), **o)), "x") for n, o in names.items()]


def write(path, samples):
    write_index(path, [(file.sample.path, file.index, file.stamp) for file in check_samples(samples).good])
    return IndexFile(path)


def test_what_is_written_is_what_is_found(tmp_path, samples):
    known = write(tmp_path / "x.arrow", samples)
    for sample in samples:
        found, truth = known.find(sample.path), video_index.frame_index(sample.path)
        assert found.is_counted == truth.is_counted == sample.path.endswith(".mpg")
        assert (found.times_seconds == truth.times_seconds).all()
        for name in ("pts", "seek_to", "is_key", "is_shown"):
            assert (getattr(found, name) == getattr(truth, name)).all()
        assert (found.codec, found.time_base) == (truth.codec, truth.time_base)
    assert known.find(str(tmp_path / "other.mp4")) is None
    os.utime(samples[0].path, ns=(1, 1))
    assert known.find(samples[0].path) is None
    os.unlink(samples[1].path)
    assert known.find(samples[1].path) is None


@pytest.mark.parametrize(
    "lie",
    [dict(is_shown=[1] * 10), dict(is_shown=[0] * 40), dict(time_base="x"), dict(pts=[0] * 40), dict(is_key=[0] * 40)],
)
def test_what_cannot_be_is_not_found(tmp_path, samples, lie):
    write(tmp_path / "x.arrow", samples[:1])
    table = feather.read_table(tmp_path / "x.arrow")
    ((name, value),) = lie.items()
    place = table.schema.get_field_index(name)
    table = table.set_column(place, table.schema.field(place), pyarrow.array([value], table.schema.field(place).type))
    feather.write_feather(table, tmp_path / "y.arrow", compression="uncompressed")
    assert IndexFile(tmp_path / "x.arrow").find(samples[0].path) is not None
    assert IndexFile(tmp_path / "y.arrow").find(samples[0].path) is None


def test_training_reads_the_same_clips_and_decodes_no_file_whole(tmp_path, samples, monkeypatch):
    transform = TrainingTransform(AugmentConfig(), Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3))
    clip = ClipConfig(num_frames=3, stride=4)
    plain = TrainingClips(Files(samples), [0, 0, 0], clip, transform, seed=1)
    expected = [plain[epoch, i].pixels for epoch in range(3) for i in range(3)]
    known = write(tmp_path / "x.arrow", samples)

    def refuse(*_):
        raise AssertionError("looked at the file again")

    for module, name in ((video_index, "frame_index"), (reader, "frame_index"), (video_index, "probe")):
        monkeypatch.setattr(module, name, refuse)
    fast = TrainingClips(Files(samples, index_file=known), [0, 0, 0], clip, transform, seed=1)
    got = [fast[epoch, i].pixels for epoch in range(3) for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_wrong_files_are_told(tmp_path):
    (tmp_path / "text").write_text("no index")
    for name in ("text", "missing"):
        with pytest.raises(DataError, match="evl check --index writes one"):
            IndexFile(tmp_path / name)


def test_check_writes_one_and_training_takes_it(capsys, tmp_path, videos):
    code, _, _ = run_command(capsys, "check", videos, "--index", tmp_path / "i.arrow", "--workers", 0)
    assert code == 0
    assert len(IndexFile(tmp_path / "i.arrow")._rows) == 12
    options = ["--set", f"data.index={tmp_path / 'i.arrow'}", "training.steps=1", "data.num_workers=0"]
    options += ["clip.num_frames=2", "model.taps=last 1", "backbone.image_size=32"]
    code, _, err = run_command(capsys, "train", "--data", videos, "--out", tmp_path / "run", *options)
    assert code == 0, err
