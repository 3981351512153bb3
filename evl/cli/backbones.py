"""evl backbones"""

from __future__ import annotations

from typing import Annotated

import typer

NAME = "backbones"


def command(
    word: Annotated[str, typer.Argument(help="Only names with this word; * and ? match as in a shell.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the frozen encoders that work here: timm's names with their weights, and the embedded one."""
    from rich.table import Column, Table

    from evl.backbones import list_backbones
    from evl.cli.common import output, print_json, start_logging
    from evl.errors import BackboneError

    start_logging()
    found = list_backbones(word)
    if not found:
        raise BackboneError(f"no backbone that works here has {word!r} in its name; 'evl backbones' lists all")
    if json:
        fields = ("width", "depth", "num_heads", "grid", "num_prefix_tokens", "image_size", "patch_size")
        print_json(
            [{"name": name, **{f: getattr(spec, f) for f in fields}, "parameters": n} for name, spec, n in found]
        )
        return
    table = Table(Column("name", no_wrap=True), "px", "patch", "grid", "width", "blocks", "heads", "M params")
    for name, spec, parameters in found:
        pairs = (spec.image_size, spec.patch_size, spec.grid)
        sizes = [str(a) if a == b else f"{a}×{b}" for a, b in pairs[:2]] + [f"{spec.grid[0]}×{spec.grid[1]}"]
        table.add_row(name, *sizes, str(spec.width), str(spec.depth), str(spec.num_heads), f"{parameters / 1e6:.1f}")
    output.print(table)
    output.print("also: --backbone FILE with one of OpenAI's CLIP archives", highlight=False)
