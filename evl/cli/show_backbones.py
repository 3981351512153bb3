"""The list of encoders, printed."""

from __future__ import annotations

from itertools import groupby

from rich.table import Column, Table

from evl.cli.common import output, print_json
from evl.errors import BackboneError

WIDE = 150  # columns that a table with all sizes needs


def show_backbones(found, word: str, as_json: bool) -> None:
    """BackboneError where there are none of this ``word``."""
    from evl.backbones.listing import why_none

    if not found:
        raise BackboneError(why_none(word))
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    for family, names in groupby(found, key=lambda one: one.family):
        if output.width >= WIDE:
            _print_wide(family, list(names), max(len(one.name) for one in found))
        else:
            _print_narrow(family, list(names))
    here = sum(one.is_here for one in found)
    output.print(
        f"{len(found)} name{'s' if len(found) > 1 else ''}; ● weights on this machine: {here}\n"
        "GFLOPs of one frame, a multiply-add counted once. License of the weights as timm states it: read the "
        "source's own.\nAlso --backbone FILE with one of OpenAI's CLIP archives.",
        highlight=False,
        style="dim",
    )


def _sizes(one) -> tuple[str, str, str, str, str]:
    """Image, grid, width and blocks, parameters, cost."""
    spec = one.spec
    height, width = spec.image_size
    image = str(height) if height == width else f"{height}×{width}"
    return image, f"{spec.grid[0]}×{spec.grid[1]}", str(spec.width), str(spec.depth), *_amounts(one)


def _amounts(one) -> tuple[str, str]:
    millions, gflops = one.parameters / 1e6, one.macs / 1e9
    return f"{millions:,.0f}" if millions >= 10 else f"{millions:.1f}", (
        f"{gflops:,.0f}" if gflops >= 100 else f"{gflops:.1f}" if gflops >= 1 else f"{gflops:.2f}"
    )


def _license(one) -> str:
    if one.source is None:
        return "no weights"
    return one.license or "unknown"


def _print_wide(family: str, names: list, longest: int) -> None:
    """A line per name."""
    right = {"justify": "right", "no_wrap": True}
    table = Table(
        Column("", width=1),
        Column(family, no_wrap=True, width=longest, header_style="bold cyan"),
        *(Column(title, width=width, **right) for title, width in (
            ("px", 7), ("grid", 5), ("width", 5), ("blocks", 6), ("heads", 5), ("M params", 8), ("GFLOPs", 7))),
        Column("license", no_wrap=True),
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for one in names:
        image, grid, width, blocks, parameters, cost = _sizes(one)
        table.add_row(
            _mark(one), one.name, image, grid, width, blocks, str(one.spec.num_heads), parameters, cost, _license(one)
        )
    output.print(table)
    output.print()


def _print_narrow(family: str, names: list) -> None:
    """Names under a line with the sizes they share."""
    output.print(f"[bold cyan]{family}")
    longest = max(len(one.name) for one in names)
    for sizes, alike in groupby(names, key=_sizes):
        image, grid, width, blocks, parameters, cost = sizes
        output.print(
            f"  {image} px, grid {grid}, width {width}, {blocks} blocks, {parameters} M params, {cost} GFLOPs",
            highlight=False,
            style="dim",
        )
        table = Table(
            Column("", min_width=3, justify="right"),
            Column("", min_width=longest, no_wrap=True),
            Column("", no_wrap=True, style="dim"),
            box=None,
            show_header=False,
            padding=(0, 1, 0, 0),
        )
        for one in alike:
            table.add_row(_mark(one), one.name, _license(one))
        output.print(table)
    output.print()


def _mark(one) -> str:
    return "[green]●[/green]" if one.is_here else ""
