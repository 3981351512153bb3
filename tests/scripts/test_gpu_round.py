"""A round on a new card: what fails, hangs or is cut off is reported, and every part runs, dry, on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "gpu"
# stands for part.py, without torch: writes rows as it does, then does what its argument says
FAKE = """
import json, os, subprocess, sys, time
name, rows, what = sys.argv[sys.argv.index("--name") + 1], sys.argv[sys.argv.index("--rows") + 1], sys.argv[2]
def row(**values):
    with open(rows, "a") as file:
        file.write(json.dumps({"part": name, "row": values}) + "\\n")
row(what="began", value=1.5, ok=True)
if what == "wrong":
    row(what="one | number", ok=False, difference=0.25)
    sys.exit(3)
if what == "fail":
    print("Traceback …\\nRuntimeError: CUDA error: out of luck\\n\\nSet MORE=1 for more", flush=True)
    sys.exit(1)
if what == "torn":
    open(rows, "a").write('{"part": "torn", "row": {"wh')
    os._exit(9)
if what == "hang":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which its child inherits
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.path.join(os.path.dirname(rows), "pids"), "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
"""


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    names = ("page", "runner", "traces")
    before = set(sys.modules)
    import page
    import runner
    import traces

    yield {"page": page, "runner": runner, "traces": traces}
    for name in set(names) - before:
        del sys.modules[name]


@pytest.fixture
def a_round(modules, monkeypatch, tmp_path):
    """Runs fake parts by the real runner: (exit code, lines, page)."""
    (tmp_path / "part.py").write_text(FAKE)
    monkeypatch.setattr(modules["runner"], "HERE", tmp_path)

    def run(*parts, arguments=()):
        out = tmp_path / "out"
        parts = [modules["runner"].Part(name, "module", limit, (name,)) for name, limit in parts]
        code = modules["runner"].main([str(out), *arguments], parts)
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines() if line[-1] == "}"]
        return code, lines, (out / "round.md").read_text()

    return run


def statuses(lines):
    return {line["part"]: (line["status"], line["reason"]) for line in lines if "status" in line}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_or_hangs_is_reported_and_the_next_part_runs(a_round, tmp_path, capsys):
    code, lines, page = a_round(("wrong", 30), ("fail", 30), ("torn", 30), ("hang", 1.5), ("fine", 30))
    assert code == 1
    assert statuses(lines) == {
        "wrong": ("wrong", "1 not as wanted: one | number"),
        "fail": ("failed", "RuntimeError: CUDA error: out of luck"),
        "torn": ("failed", "exit code 9"),
        "hang": ("timeout", "ended after 2 s"),
        "fine": ("ok", ""),
    }
    assert "| fail | failed |" in page
    assert "1 of 5 parts ok" in page
    assert r"| one \| number | 0.25 | **NO** |  |" in page
    assert page.index("one \\| number |") < page.index("began", page.index("## wrong"))  # what is wrong comes first
    # nothing that a part started lives on, whatever it does about SIGTERM
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "out" / "pids").read_text().split())
    printed = capsys.readouterr().out
    assert "timeout" in printed
    assert "1 of 5 parts ok" in printed


def test_all_ok_is_exit_code_0(a_round):
    code, lines, page = a_round(("fine", 30), ("also fine", 30))
    assert code == 0
    assert [status for status, _ in statuses(lines).values()] == ["ok", "ok"]
    assert "waiting" in page  # the goals, of which nothing was measured


def test_a_row_that_the_page_cannot_show_costs_no_part(a_round, modules, monkeypatch):
    def fail(lines):
        raise TypeError("no such row")

    monkeypatch.setattr(modules["runner"], "page_of", fail)
    code, lines, page = a_round(("fine", 30), ("also fine", 30))
    assert code == 0
    assert len(statuses(lines)) == 2
    assert "The page could not be made (TypeError: no such row); see results.jsonl" in page


def test_the_limit_of_all_parts(a_round):
    code, lines, _ = a_round(("hang", 60), ("fine", 60), arguments=("--limit", "6"))
    assert code == 1
    found = statuses(lines)
    assert found["hang"][0] == "timeout"
    assert found["fine"] == ("not run", "no time was left of 6 s")


def test_wrong_arguments(a_round, capsys):
    for arguments, message in (
        (("--only", "benches"), "no part begins with 'benches'"),
        (("--limit", "2"), "give more"),
    ):
        with pytest.raises(SystemExit):
            a_round(("fine", 30), arguments=arguments)
        assert message in capsys.readouterr().err
    code, lines, _ = a_round(("fine", 30), ("fail", 30), arguments=("--only", "fin"))
    assert code == 0
    assert list(statuses(lines)) == ["fine"]


def test_a_round_that_is_cut_off_still_tells(tmp_path):
    (tmp_path / "part.py").write_text(FAKE)
    program = (
        f"import sys; from pathlib import Path; sys.path.insert(0, {str(SCRIPTS)!r}); import runner; "
        f"runner.HERE = Path({str(tmp_path)!r}); "
        "parts = [runner.Part(name, 'module', 60, (name,)) for name in ('fine', 'hang', 'more')]; "
        f"sys.exit(runner.main([{str(tmp_path / 'out')!r}], parts))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not (tmp_path / "out" / "pids").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 1
    page = (tmp_path / "out" / "round.md").read_text()
    assert "**Stopped by a signal" in page
    assert "| fine | ok |" in page
    assert "| hang | waiting |" in page
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "out" / "pids").read_text().split())


def event(category, start, duration, name="kernel", **arguments):
    return {"ph": "X", "cat": category, "ts": start, "dur": duration, "name": name, "args": arguments}


def test_a_trace_summed_up(modules):
    events = [
        {"ph": "M", "name": "process_name"},
        event("cpu_op", 0, 1000, "aten::mm"),
        event("kernel", 100, 40, "nvjet_gemm"),
        event("kernel", 120, 40, "elementwise"),  # 20 of it beside the other
        event("gpu_memcpy", 150, 20, "Memcpy HtoD (Pinned -> Device)", bytes=300),  # half of it beside a kernel
        event("gpu_memcpy", 180, 10, "Memcpy DtoH (Device -> Pageable)", bytes=100),
        event("kernel", 190, 10, "vectorized"),
    ]
    found = modules["traces"].summed(events)
    assert found["wall_ms"] == 0.1
    assert found["kernels"] == pytest.approx(0.7)  # 100–160, 190–200
    assert found["copies"] == pytest.approx(0.3)
    assert found["idle"] == pytest.approx(0.1)  # 170–180
    assert found["copies_overlapped"] == pytest.approx(10 / 30)
    assert found["not_pinned"] == pytest.approx(0.25)
    assert found["matrix"] == pytest.approx(40 / 90)
    assert found["memory_bound"] == pytest.approx(50 / 90)
    assert found["num_kernels"] == 3
    assert modules["traces"].summed(events[:2]) == {"wall_ms": 0.0}


def test_goals_are_taken_from_the_best(modules):
    def bench(size, how, share, step, clips):
        row = {"what": f"{size}, bf16, {how}", "decoder_to_encoder": share, "step_share_of_peak": step,
               "clips_a_second": clips}  # fmt: skip
        return {"part": f"bench {size}", "row": row}

    lines = [
        bench("b16-8f", "eager", 0.12, 0.40, 1500.0),
        bench("b16-8f", "compiled", 0.08, 0.44, 1800.0),
        {"part": "images", "row": {"what": "B/16, plain timm", "images_a_second": 9000.0}},
        {"part": "images", "row": {"what": "B/16, encoder with taps", "images_a_second": 5000.0}},
    ]
    met = {goal["goal"]: (goal["measured, the best"], goal["met"]) for goal in modules["page"].goals(lines)}
    assert met["b16-8f: decoder at most 10 % of the encoder"] == ("8.0 %", "yes")
    assert met["b16-8f: a step at least 45 % of the measured peak"] == ("44.0 %", "**NO**")
    assert met["50 epochs of Kinetics-400, b16-8f, within 2 hours of compute"] == ("1.85 h", "yes")
    assert met["B/16: above timm's best public rate, images a second"] == ("5,000", "**NO**")
    assert met["L/14: above timm's best public rate, images a second"] == (None, "waiting")


@pytest.fixture
def prepare(tmp_path):
    """prepare.sh with, in pip's place, what writes one wheel of 3 MiB a package: (exit code, stdout, stderr)."""
    pip = tmp_path / "pip"
    pip.write_text(
        '#!/usr/bin/env bash\nwhile [ "$1" != -d ]; do shift; done\nfolder="$2"; shift 2\n'
        'for package; do head -c 3145728 /dev/zero > "$folder/$package.whl"; done\n'
    )
    pip.chmod(0o755)

    def run(*arguments, **settings):
        own = {"PYTHON": str(pip), "WHEELS": str(tmp_path / "wheels"), **settings}
        done = subprocess.run(["bash", str(SCRIPTS / "prepare.sh"), *arguments], env={**os.environ, **own},
                              capture_output=True, text=True)  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def test_prepare_gathers_counts_and_says_what_to_type(prepare, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "old-1.0.whl").write_text("of another set")
    code, stdout, _ = prepare("bench")
    assert code == 0
    wheels = sorted(path.name for path in (tmp_path / "wheels").iterdir())
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("pydantic==")]
    assert f"{pinned[0]}.whl" in wheels
    assert not any(name.startswith(("old", "av", "pyarrow")) for name in wheels)
    assert f"wheels {3 * len(wheels):.1f} MiB" in stdout
    assert 'bash scripts/gpu/round.sh "$OUT" --only machine parity' in stdout
    code, stdout, stderr = prepare("all", LIMIT_MIB="20")
    assert code == 1
    assert "too much" in stderr
    assert "round.sh" not in stdout
    assert prepare("everything")[0] == 2


@pytest.mark.slow
def test_every_part_runs_dry_on_a_cpu(tmp_path):
    out = tmp_path / "out"
    command = ["bash", str(SCRIPTS / "round.sh"), str(out), "--dry", "--device", "cpu", "--limit", "1500"]
    own = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    found = statuses(lines)
    assert {part: status for part, (status, _) in found.items() if status != "ok"} == {}, (found, done.stdout)
    assert list(found) == lines[0]["round"]["parts"]
    assert len(found) == 16
    with_rows = {line["part"] for line in lines if "row" in line}
    assert with_rows == set(found)  # every part reported
    assert done.returncode == 0
    page = (out / "round.md").read_text()
    assert "16 of 16 parts ok" in page
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "results.jsonl", "round.md"]
