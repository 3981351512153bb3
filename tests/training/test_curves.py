"""Curves as TensorBoard reads them."""

import errno
import os

import pytest

from evl.errors import SaveError
from evl.training.curves import Curves


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_reads_them_and_a_resumed_run_takes_points_back(tmp_path):
    curves = Curves(tmp_path / "tensorboard")
    for step in range(1, 6):
        curves.add(step, {"loss": 1 / 2**step, "val_top1": None if step < 5 else 50})
    again = Curves(tmp_path / "tensorboard", purge_step=4)
    again.add(4, {"loss": 8.0})
    assert len(os.listdir(tmp_path / "tensorboard")) == 2
    assert read(tmp_path / "tensorboard") == {"loss": [(1, 0.5), (2, 0.25), (3, 0.125), (4, 8.0)], "val_top1": []}


def test_a_disk_that_refuses_is_one_sentence(tmp_path):
    curves = Curves(tmp_path)
    curves.path.unlink()
    curves.path.symlink_to("/dev/full")
    with pytest.raises(SaveError, match=os.strerror(errno.ENOSPC)):
        curves.add(1, {"loss": 1.0})
