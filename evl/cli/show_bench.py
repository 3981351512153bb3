"""What a measurement prints."""

from __future__ import annotations

from rich.table import Table

from evl.cli.common import output


def print_bench(result: dict) -> None:
    """A result as a table for people."""
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
