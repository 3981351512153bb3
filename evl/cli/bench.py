"""evl bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Device, Json

NAME = "bench"


def command(
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="b16-8f, b16-32f, l14-8f, l14-32f, l14-336-32f, tiny or dry (seconds); may be given several times."
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
    from evl.cli.show_bench import print_bench
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
