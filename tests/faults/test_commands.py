"""Every command meets a death, a full disk and a broken one at its writes, and is called again: the result is that of
an undisturbed command, and nothing stays behind."""

import json
import os
import subprocess
import sys

import pytest

from tests.faults.commands import COMMANDS

# the others write by the same functions: a sweep what a run and few shots write, embed-npy what embed writes
LATER = ("demo", "train", "train-stored", "few-shot", "evaluate-again", "embed", "prepare")
QUICK = [name for name in COMMANDS if name not in LATER]


def meet_faults(folder, sample, *names):
    command = [sys.executable, "-m", "tests.faults.driver", folder, 0, sample, *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    problems = [problem for one in result.values() for problem in one["problems"]]
    assert problems == [], "\n\n".join(problems[:10])
    assert list(result) == list(names)
    for one in result.values():
        assert one["moments"] >= 6
        assert one["missed"] <= one["faults"] / 10, "moments that a second process does not come to"
    return result


def test_a_fault_of_each_way_to_write(tmp_path):
    meet_faults(tmp_path, 1, *QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_fault_at_every_moment(tmp_path, name):
    """The demo takes long: only eight faults."""
    result = meet_faults(tmp_path, 8 if name == "demo" else 0, name)
    print(json.dumps(result))
