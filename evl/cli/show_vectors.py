"""What vectors of videos print."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from evl.cli.common import output, print_json, say, tell


def show_vectors(found, out: Path, as_json: bool, by_neighbors: bool) -> None:
    """Exit code 1 where videos cannot be used."""
    scores = found.neighbors() if by_neighbors else None
    if as_json:
        document = {"vectors": str(out), "num_videos": len(found.samples), "width": found.vectors.shape[1]}
        document |= {"pool": found.pool, "protocol": found.protocol, "failed": found.damaged}
        print_json(document | ({"neighbors": scores.to_dict()} if scores else {}))
    else:
        for name, reason in found.damaged.items():
            tell(f"{name}: {reason}", label="failed")
        if scores is not None:
            _print_neighbors(scores)
        shape = f"{len(found.samples)} vectors of {found.vectors.shape[1]} numbers ({found.pool}; {found.protocol})"
        say(f"{shape} are in {out}")
    if found.damaged:
        raise typer.Exit(1)


def _print_neighbors(scores) -> None:
    low, high = scores.top1_interval
    table = Table("nearest neighbors by cosine", "percent")
    table.add_row("the nearest is of the same class (top-1)", f"{scores.recall[1]:.1f}  ({low:.1f}–{high:.1f})")
    table.add_row("vote of the 20 nearest", f"{scores.vote:.1f}")
    for k in (5, 10):
        table.add_row(f"one of the {k} nearest is", f"{scores.recall[k]:.1f}")
    table.add_row("mean average precision", f"{scores.mean_average_precision:.1f}")
    table.add_row("chance (top-1)", f"{scores.chance:.1f}")
    output.print(table)
    alone = f"; {scores.num_alone} have no other of their class there and count as misses" if scores.num_alone else ""
    say(f"{scores.num_queries} videos among {scores.num_gallery}{alone}")
