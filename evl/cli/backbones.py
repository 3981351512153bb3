"""evl backbones"""

from __future__ import annotations

from typing import Annotated

import typer

from evl.cli.options import Json

NAME = "backbones"


def command(
    word: Annotated[
        str, typer.Argument(help="Only names or families with this word, as siglip2; * and ? match as in a shell.")
    ] = "",
    json: Json = False,
) -> None:
    """List the frozen encoders that work here: timm's names with their weights, and the embedded one."""
    from evl.backbones import list_backbones
    from evl.cli.show_backbones import show_backbones

    show_backbones(list_backbones(word), word, json)
