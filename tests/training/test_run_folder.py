"""The log of a run, read again with damage in it: what is left counts, and nothing ends in a traceback."""

import random

import pytest

from evl.training.run_folder import RunFolder

LINES = [b'{"step": 2, "loss": 0.5, "train_top1": 50.0}', b'{"step": 4, "loss": 0.25, "train_top1": 75.0}']
POINTS = ((2, 0.5, 50.0), (4, 0.25, 75.0))


ODD = [
    *(
        b"\xff\xfe{}",
        b'{"step": 3, "lo\xffss": 1.0}',
        b"\x00" * 100,
        b"\xed\xa0\x80",
        b"[" * 20_000,
        b"[3]",
        b"3",
        b"null",
    ),
    b'{"step": "3", "loss": 1.0, "train_top1": 1.0}',
    b'{"step": null, "train_top1": 1.0}',
    b'{"train_top1": 1.0}',
    b'{"step": 3, "train_top1": 1.0}',
    b'{"step": 3, "loss": null, "train_top1": 1.0}',
    b'{"step": [3]}',
    b'{"step": 3, "loss": "x", "train_top1": "y"}',
    b'{"step": 3.5, "loss": 1.0, "train_top1": 1.0}',
    b'{"step": true, "loss": 1.0, "train_top1": 1.0}',
    b'{"step": 1' + b"0" * 400 + b', "loss": 1.0, "train_top1": 1.0}',
    b'{"step": -1, "loss": 1.0, "train_top1": 1.0}',
    b'{"step": 2, "loss": 9.0, "train_top1": 9.0}',
    b'{"step": 9' * 1000,
]


@pytest.mark.parametrize("line", ODD, ids=lambda line: ascii(line[:40]))
def test_a_line_that_is_no_point(tmp_path, line):
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([LINES[0], line, LINES[1], b""]))
    assert folder.curve() == POINTS
    folder.forget_after(3)
    assert folder.curve() == POINTS[:1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_any_bytes(tmp_path, seed):
    rng, content = random.Random(seed), bytearray(b"\n".join([*LINES, b""]))
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (tmp_path / "metrics.jsonl").write_bytes(content)
    folder = RunFolder(tmp_path)
    steps = [step for step, *_ in folder.curve()]
    assert steps == sorted(set(steps))
    folder.forget_after(3)
    assert [step for step, *_ in folder.curve()] == [step for step in steps if step <= 3]
