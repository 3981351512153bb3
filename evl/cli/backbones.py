"""evl backbones"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

NAME = "backbones"
WIDE = 150  # columns that one line a name needs


def command(
    word: Annotated[
        str, typer.Argument(help="Only names or families with this word, as siglip2; * and ? match as in a shell.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the frozen encoders that work here: timm's names with their weights, and the embedded one."""
    from evl.backbones import list_backbones
    from evl.cli.common import output, print_json, start_logging
    from evl.errors import BackboneError

    start_logging()
    found = list_backbones(word)
    if not found:
        raise BackboneError(_nothing(word))
    if json:
        print_json([_document(one) for one in found])
        return
    for family, names in groupby(found, key=lambda one: one.family):
        if output.width >= WIDE:
            _print_wide(output, family, list(names), max(len(one.name) for one in found))
        else:
            _print_narrow(output, family, list(names))
    here = sum(one.is_here for one in found)
    output.print(
        f"{len(found)} name{'s' if len(found) > 1 else ''}; ● weights on this machine: {here}\n"
        "GFLOPs of one frame, a multiply-add counted once. Licence of the weights as timm states it: read the "
        "source's own.\nAlso --backbone FILE with one of OpenAI's CLIP archives.",
        highlight=False,
        style="dim",
    )


def _nothing(word: str) -> str:
    """Why nothing is listed: a known architecture that cannot work says so itself."""
    import timm

    from evl.backbones.listing import refuse
    from evl.errors import BackboneError

    sentence = f"no backbone that works here has {word!r} in its name or family; 'evl backbones' lists all"
    if any(sign in word for sign in "*?["):
        return sentence
    architecture = word.partition(".")[0]
    known = [word] if timm.is_model(architecture) else timm.list_models(f"{word}*") + timm.list_models(f"*{word}*")
    try:
        for name in known[:20]:
            refuse(name)
    except BackboneError as refusal:
        return f"{sentence}. {refusal}"
    return sentence


def _document(one) -> dict:
    spec = one.spec
    fields = ("width", "depth", "num_heads", "grid", "num_prefix_tokens", "image_size", "patch_size")
    return {
        "name": one.name,
        "family": one.family,
        **{field: getattr(spec, field) for field in fields},
        "parameters": one.parameters,
        "gflops": round(one.macs / 1e9, 3),  # a multiply-add counted once
        "license": one.license,
        "source": one.source,
        "file": one.file,
        "weights_here": one.is_here,
    }


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


def _print_wide(output, family: str, names: list, longest: int) -> None:
    """One line a name."""
    from rich.table import Column, Table

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


def _print_narrow(output, family: str, names: list) -> None:
    """Names under a line with the sizes they share."""
    from rich.table import Column, Table

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
