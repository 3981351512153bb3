"""Every size of ``evl bench``, each in a process of its own; writes benchmarks/results/NAME.json and NAME.md.

python benchmarks/run.py                         # all sizes: on a CPU in fp32 and bf16, on CUDA in bf16
python benchmarks/run.py --size b16-8f --repeats 9 --name mine
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

from evl.bench import SIZES
from evl.runtime.text import table

COLUMNS = (
    (
        "size precision batch backbone decoder_f f+b twin_f f+b twin÷evl,f+b decoder÷backbone step clips/s "
        "share_of_matrix_peak decoder_MiB twin_MiB step_MiB"
    )
    .replace("_", "\u00a0")
    .split(" ")
)
SECONDS = ("backbone", "decoder_forward", "decoder_forward_backward", "twin_forward", "twin_forward_backward")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=[name for name in SIZES if name != "dry"], choices=SIZES)
    parser.add_argument("--precision", nargs="+", default=["bf16"] if torch.cuda.is_available() else ["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", help="of the files; by default the device and the date")
    options = parser.parse_args()
    results = []
    for size in options.size:
        for precision in options.precision:
            command = [sys.executable, "-m", "evl", "bench", "--json", "--size", size, "--precision", precision]
            command += ["--repeats", str(options.repeats), *(["--compile"] if options.compile else [])]
            print(" ".join(command[3:]), file=sys.stderr, flush=True)
            results += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            write(results, options.name)


def write(results: list[dict], name: str | None) -> None:
    """Into NAME.json and NAME.md; what stood there of the same size and settings is replaced, the rest stays."""
    device = results[0]["machine"]["device"]
    name = name or f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{date.today()}"
    RESULTS.mkdir(exist_ok=True)
    if (RESULTS / f"{name}.json").exists():
        before = json.loads((RESULTS / f"{name}.json").read_text())
        results = list({_key(result): result for result in before + results}.values())
    order = list(SIZES)
    results.sort(key=lambda result: (order.index(result["size"]), result["settings"]["precision"] != "fp32"))
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(as_markdown(results))


def _key(result: dict) -> tuple:
    return result["size"], result["settings"]["precision"], result["settings"]["compile"]


def as_markdown(results: list[dict]) -> str:
    machine = results[0]["machine"]
    lines = [
        f"# {machine['device']}",
        "",
        ", ".join(f"{key} {value}" for key, value in machine.items() if key != "device") + f"; {date.today()}",
        "",
        "Seconds; medians. Peak memory in MiB: the decoder's beyond the features, a step's beyond model and clips.",
        "",
    ]
    rows = []
    for result in results:
        settings, seconds, ratios, peak = (result[k] for k in ("settings", "seconds", "ratios", "peak_bytes"))
        memory = [f"{peak[k] / 2**20:,.0f}" if peak[k] else "?" for k in ("decoder", "twin", "training_step")]
        cells = [
            result["size"],
            settings["precision"] + (", compiled" if settings["compile"] else ""),
            settings["batch_size"],
            *(f"{seconds[k]:.3g}" for k in SECONDS),
            f"**{ratios['twin_to_fast_forward_backward']:.1f}**",
            f"{100 * ratios['decoder_to_backbone']:.1f} %",
            f"{seconds['training_step']:.3g}",
            f"{result['clips_a_second']:.2f}",
            f"{100 * result['share_of_peak']['training_step']:.0f} % of {result['matmul_peak_gflops']:,.0f} GFLOP/s",
            *memory,
        ]
        rows.append(cells)
    lines += [*table(COLUMNS, rows), "", "GFLOPs a view (multiply-adds):", ""]
    rows = []
    for result in {result["size"]: result for result in results}.values():
        counts = [result["gflops_a_view"][k] for k in ("fast", "plain", "plain_by_torch", "reported")]
        rows.append((result["size"], *("–" if n is None else f"{n:.1f}" for n in counts)))
    lines += table(("size", "evl", "plain", "plain, by torch's counter", "reported"), rows)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
