"""evl bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.common import output
from evl.cli.options import Device, Json

NAME = "bench"


def command(
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="b16-8f, b16-32f, l14-8f, l14-32f, l14-336-32f, tiny, dry (seconds), or b16-8f-side, dry-side; may be "
            "given several times."
        ),
    ] = None,
    device: Device = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16; auto is bf16 on CUDA, fp32 on the CPU.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Clips together; default: what suits the size.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each part; the median is printed.")] = 5,
    compile: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    twin: Annotated[bool, typer.Option(help="Measure the plain decoder too, for comparison.")] = True,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON document here.")] = None,
    json: Json = False,
) -> None:
    """Measure what training costs on this machine: backbone, decoder, step, memory, beside the plain decoder.

    Random weights and pixels; nothing is read or downloaded. Example:  evl bench --size b16-8f --precision bf16
    """
    from evl.bench import find_size, run_bench
    from evl.cli.common import console, print_json
    from evl.runtime.files import write_json

    names = size or ["b16-8f"]
    for name in names:
        find_size(name)  # before the first is measured
    how = dict(device=device, precision=precision, batch_size=batch, repeats=repeats, compile=compile, twin=twin)
    results = []
    for name in names:
        with console.status(f"{name} …") as status:
            results.append(run_bench(name, progress=lambda what: status.update(f"{name}: {what}"), **how))  # noqa: B023
        if not json:
            print_bench(results[-1])
    if out is not None:
        write_json(out, results)
    if json:
        print_json(results)


def print_bench(result: dict) -> None:
    """A result as a table for people."""
    from rich.table import Table

    settings, seconds, ratios = result["settings"], result["seconds"], result["ratios"]
    table = Table(
        title=f"{result['size']}: {settings['num_frames']} frames, batch {settings['batch_size']}, "
        f"{settings['precision']}{', compiled' if settings['compile'] else ''}\n{result['machine']['device']}",
        title_justify="left",
    )
    for column in ("", "evl", "plain twin", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("decoder forward", "decoder_forward", "twin_forward", "twin_to_fast_forward"),
        ("decoder forward + backward", "decoder_forward_backward", "twin_forward_backward",
         "twin_to_fast_forward_backward"),
    ]  # fmt: skip
    table.add_row("backbone forward", _milliseconds(seconds["backbone"]))
    for label, fast, twin, ratio in rows:
        table.add_row(label, _milliseconds(seconds[fast]), _milliseconds(seconds[twin]), _times(ratios[ratio]))
    peak, gflops, share = result["peak_bytes"], result["gflops_a_view"], result["share_of_peak"]
    memory = ratios["fast_to_twin_peak_memory"]
    table.add_row("decoder's peak memory beyond features", _mebibytes(peak["decoder"]), _mebibytes(peak["twin"]),
                  _times(1 / memory if memory else None))  # fmt: skip
    table.add_row("decoder ÷ backbone", f"{100 * ratios['decoder_to_backbone']:.1f} %")
    table.add_row("training step", _milliseconds(seconds["training_step"]))
    table.add_row("live: a new frame in the backbone", _milliseconds(seconds["live_frame"]))
    table.add_row("live: a window in the decoder", _milliseconds(seconds["live_window"]))
    table.add_row("clips a second", f"{result['clips_a_second']:.2f}")
    table.add_row("images a second, backbone alone", f"{result['images_a_second']:,.1f}")
    table.add_row("a step's peak memory beyond model and clips", _mebibytes(peak["training_step"]))
    table.add_row("features", _mebibytes(peak["features"]))
    table.add_row("GFLOPs a view (multiply-adds)", f"{gflops['fast']:.1f}", f"{gflops['plain']:.1f}")
    table.add_row("  by torch's counter", "", f"{gflops['plain_by_torch']:.1f}")
    if gflops["reported"]:
        table.add_row("  reported by the paper", "", f"{gflops['reported']:.1f}")
    table.add_row("matrix peak here, GFLOP/s", f"{result['matmul_peak_gflops']:,.0f}")
    table.add_row(
        "share of it: backbone, step", f"{100 * share['backbone']:.0f} %, {100 * share['training_step']:.0f} %"
    )
    output.print(table)


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:,.1f} ms"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f} ×"


def _mebibytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**20:,.0f} MiB"
