"""evl extract, as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

import evl.extraction.estimate
import evl.extraction.extract
from evl.extraction.verify import verify_store
from evl.store import FeatureStore
from tests.extraction.test_extract_killed import files_of
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(tiny_config.to_yaml())
    return path


def test_a_store_is_made_and_verified(capsys, tmp_path, videos, config):
    out = tmp_path / "store"
    code, text, _ = run_command(capsys, "extract", "--config", config, "--out", out, "--estimate", "--json")
    told = json.loads(text)
    assert (code, out.exists(), told["fits"]) == (0, False, True)
    code, text, messages = run_command(
        capsys, "extract", "--config", config, "--data", videos, "--out", out, "--clips-per-video", 2,
        "--dtype", "int8", "--scale", "token", "--set", "clip.stride=1", "model.taps=[1,2]", "--frames", 4, "--json",
    )  # fmt: skip
    assert code == 0, messages
    made = json.loads(text)
    assert (made["clips_written"], made["complete"], made["damaged"]) == (8 * 2 + 4 * 2, True, [])
    assert "24 clips (8 train videos × 2, 4 val videos × 2), tokens of blocks 0, 1, 2, int8" in messages
    description = FeatureStore(out).description
    assert (description.config.clip.stride, description.taps, description.options.scale) == (1, (1, 2), "token")
    assert made["bytes"] == sum(map(len, files_of(out).values()))
    code, text, _ = run_command(capsys, "extract", "--verify", out, "--sample", 5, "--workers", 0)
    assert code == 0
    assert "5 clips computed again: 5 equal" in text
    shard = out / "shards/00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-20000:] = bytes(20000)
    shard.write_bytes(content)
    code, text, _ = run_command(capsys, "extract", "--verify", out, "--sample", 99, "--workers", 0, "--json")
    told = json.loads(text)
    assert (code, told["num_clips"]) == (1, 24)
    assert told["num_different"] > 0
    code, text, _ = run_command(capsys, "extract", "--verify", out, "--sample", 99, "--workers", 0)
    assert "times what is allowed" in text


def test_wrong_usage_and_other_options_are_refused(capsys, tmp_path, config):
    out = tmp_path / "store"
    start = ["extract", "--config", config, "--out", out]
    for arguments, wanted, expected in (
        (["extract", "--config", config], "Give --out STORE", 2),
        ([*start, "--part", "0/2"], "such as 3/16", 2),
        ([*start, "--part", "3/2"], "expected a number from 1 to 2", 2),
        ([*start, "--dtype", "int4"], "int4", 2),
        ([*start, "--form", "mapss"], "did you mean maps?", 2),
        (["extract", "--verify", out, "--data", "x", "--set", "clip.stride=1"], "leave out --data, --set", 2),
        (["extract", "--verify", out, "--part", "9/3"], "leave out --part", 2),
        (["extract", "--verify", out, "--form", "tokens"], "leave out --form", 2),
        (["extract", "--verify", out, "--estimate", "--clips-per-video", 1], "leave out --clips-per-video, --est", 2),
        ([*start, "--sample", "16"], "--sample goes with --verify STORE", 2),
        ([*start, "--seed", "3"], "--seed goes with --verify STORE", 2),
        (["extract", "--verify", out], "no store of features here", 1),
    ):
        code, _, messages = run_command(capsys, *arguments)
        assert code == expected, arguments
        assert wanted in " ".join(messages.split()), messages
    assert not out.exists()
    assert run_command(capsys, *start)[0] == 0
    before = files_of(out)
    for command in ([*start, "--form", "maps"], [*start, "--form", "maps", "--estimate"]):
        code, _, messages = run_command(capsys, *command)
        assert code == 1
        assert "options.form is maps now and tokens in the store" in messages
    code, text, messages = run_command(capsys, *start)
    assert code == 0
    assert "nothing is left to do" in messages
    assert "0 clips were stored now" in text
    assert files_of(out) == before


def test_another_sample_is_verified_each_time_unless_a_seed_is_given(capsys, tmp_path, config):
    out = tmp_path / "store"
    assert run_command(capsys, "extract", "--config", config, "--out", out, "--clips-per-video", 50)[0] == 0

    def verified(*arguments):
        code, text, _ = run_command(
            capsys, "extract", "--verify", out, "--sample", 6, "--workers", 0, "--json", *arguments
        )
        told = json.loads(text)
        assert (code, told["num_clips"]) == (0, 6)
        return told["seed"], [(one["split"], one["path"], one["clip"]) for one in told["clips"]]

    first, second = verified(), verified()  # of 400 clips and more: 6 that are equal are not seen in a lifetime
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert verified("--seed", first[0]) == first
    code, text, _ = run_command(
        capsys, "extract", "--verify", out, "--sample", 2, "--seed", 7, "--workers", 0, "--device", "cpu"
    )
    assert (code, "(sample --seed 7)" in text) == (0, True)
    drawn = {tuple((one.path, one.clip) for one in verify_store(out, sample=3, num_workers=0).clips) for _ in range(2)}
    assert len(drawn) == 2


def test_damaged_videos_make_the_exit_code_unless_they_are_allowed(capsys, tmp_path, config, videos):
    (tmp_path / "list.csv").write_text(
        "path,label,split\n" + "".join(f"{path},{path.parent.name},train\n" for path in sorted(videos.rglob("*.mp4")))
        + f"{tmp_path}/broken.mp4,dark,val\n"
    )  # fmt: skip
    (tmp_path / "broken.mp4").write_bytes(b"broken" * 1000)
    command = ["extract", "--config", config, "--data", tmp_path / "list.csv", "--out", tmp_path / "store"]
    code, text, _ = run_command(capsys, *command)
    assert code == 1
    assert "broken.mp4: cannot be decoded" in text
    assert "1 damaged video, listed in" in text
    code, text, _ = run_command(capsys, *command, "--allow-damaged", "--json")
    assert code == 0
    assert [one["split"] for one in json.loads(text)["damaged"]] == ["val"]


def test_a_disk_that_is_too_small_is_asked_about(capsys, tmp_path, config, monkeypatch):
    disk = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(evl.extraction.estimate.shutil, "disk_usage", lambda path: disk)
    command = ["extract", "--config", config, "--out", tmp_path / "store"]
    code, _, messages = run_command(capsys, *command)
    assert code == 1
    assert "the disk cannot hold it" in messages
    assert "nothing was written" in messages
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("n", "y"):
        monkeypatch.setattr("typer.confirm", lambda *_, answer=answer, **__: answer == "y")
        assert run_command(capsys, *command)[0] == (answer == "n")
        assert (tmp_path / "store").exists() == (answer == "y")
    assert run_command(capsys, "extract", "--config", config, "--out", tmp_path / "other", "--yes")[0] == 0


def test_ctrl_c_tells_how_to_go_on(capsys, tmp_path, config, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evl.extraction.extract._Shard, "write", interrupted)
        code, _, messages = run_command(capsys, "extract", "--config", config, "--out", tmp_path / "store")
    assert code == 130
    assert "stopped; go on with the same command" in messages
    assert run_command(capsys, "extract", "--config", config, "--out", tmp_path / "store")[0] == 0
    assert run_command(capsys, "extract", "--config", config, "--out", tmp_path / "other")[0] == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "other")


def started(*arguments, processes=1, **options):
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *many, "-m", "evl", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_torchrun_and_readers_make_the_same_store(capsys, tmp_path, tiny_config, config):
    start = ["extract", "--config", config, "--clips-per-video", 60, "--shard-megabytes", 1, "--dtype", "float32"]
    assert run_command(capsys, *start, "--out", tmp_path / "one")[0] == 0
    process = started(*start, "--out", tmp_path / "two", "--workers", 1, "--json", processes=2, stdout=subprocess.PIPE)
    text, messages = process.communicate(timeout=240)
    assert process.returncode == 0, messages[-3000:]
    assert json.loads(text)["clips_written"] == 8 * 60 + 4 * 2
    assert len(files_of(tmp_path / "one")) > 10
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_at_once_with_all_its_readers(capsys, tmp_path, tiny_config, config, number):
    start = ["extract", "--config", config, "--clips-per-video", 150, "--shard-megabytes", 1, "--workers", 2]
    process = started(*start, "--out", tmp_path / "store", start_new_session=True)
    for _ in range(600):
        if len(list((tmp_path / "store").glob("shards/*.safetensors"))) > 1:
            break
        time.sleep(0.05)
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    _, messages = process.communicate(timeout=60)  # which ends when all have closed their stderr
    if number != signal.SIGKILL:
        assert "Traceback" not in messages
        assert process.returncode == 130, messages[-3000:]
        assert "go on with the same command" in " ".join(messages.split())
    assert not FeatureStore(tmp_path / "store", unfinished=True).is_complete
    for name in ("store", "whole"):
        assert run_command(capsys, *start[:-2], "--out", tmp_path / name)[0] == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
