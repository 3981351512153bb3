"""evl check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.errors import plural

NAME = "check"


def command(
    data: Annotated[Path, typer.Argument(help="Folder of videos, a published data set, or a manifest.")],
    root: Annotated[Path | None, typer.Option(help="Where the listed videos lie; default: beside the list.")] = None,
    layout: Annotated[
        str,
        typer.Option(help="How the data is laid out: ucf101 and the like (default: seen by its lists), or classes."),
    ] = "auto",
    split_number: Annotated[int, typer.Option(min=1, max=3, help="Which split of HMDB51 or UCF101.")] = 1,
    manifest: Annotated[
        Path | None, typer.Option(help="Write a clean manifest (.csv) of the good videos here.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            help="Write an index of the good files' frames here; training with --set data.index=… starts faster."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; default: one a core. 0: none, if a file may not kill it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """See what is in a collection of videos, and what of it is damaged, before training.

    Every file is decoded as training will decode it. Exit code 1 if any is damaged.
    """
    from evl.api.checking import check
    from evl.cli.common import console, print_json, start_logging
    from evl.data.index_file import write_index
    from evl.data.manifests.manifest import write_manifest

    start_logging()
    listed = dict(root=root, layout=layout, split_number=split_number, labeled=manifest is not None)
    report = check(data, **listed, num_workers=workers)
    if manifest is not None:
        good = [i for i, file in enumerate(report.files) if file.info is not None]
        splits = report.splits
        named = [splits[i] for i in good] if splits and set(splits) != {"all"} else None
        write_manifest(manifest, [report.files[i].sample for i in good], named)
        console.print(
            f"clean manifest of {plural(len(good), 'video')}: {manifest}", highlight=False, markup=False, soft_wrap=True
        )
    if index is not None:
        whole = {file.sample.path: file for file in report.good if file.sample.name == file.sample.path}
        write_index(index, [(path, file.index, file.stamp) for path, file in whole.items()])
        console.print(f"index of {plural(len(whole), 'file')}: {index}", highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json(_document(report))
    else:
        _print_report(report)
    if report.damaged:
        raise typer.Exit(1)


def _document(report) -> dict:
    return {
        "num_files": len(report.files),
        "num_good": len(report.good),
        "num_damaged": len(report.damaged),
        "files": [
            {
                "path": file.sample.path,
                "label": file.sample.label,
                "bytes": file.size_bytes,
                **(
                    {
                        "num_frames": file.info.num_frames,
                        "seconds": round(file.info.duration_seconds, 3),
                        "frames_per_second": round(file.info.frames_per_second, 3),
                        "width": file.info.width,
                        "height": file.info.height,
                        "codec": file.info.codec,
                        "notices": [f"{notice.what}: {notice.detail}" for notice in file.notices],
                    }
                    if file.info is not None
                    else {"problem": file.problem}
                ),
            }
            for file in report.files
        ],
        "classes": {str(label): {"good": good, "damaged": bad} for label, (good, bad) in report.classes().items()},
        "duplicates": report.duplicates,
        "ignored": report.ignored,
        "notices": report.notices,
    }


def _print_report(report) -> None:
    from collections import Counter

    from rich.markup import escape
    from rich.table import Table

    from evl.cli.common import output

    infos = [file.info for file in report.good]
    size = sum(file.size_bytes for file in report.files)
    output.print(
        f"{plural(len(report.files), 'video')}, {size / 1e6:,.1f} MB: [green]{len(infos)} good[/green], "
        f"[{'red' if report.damaged else 'green'}]{len(report.damaged)} damaged[/]",
        highlight=False,
    )
    if infos:
        table = Table("", "least", "median", "most", show_edge=False)
        for name, form, values in (
            ("seconds", "{:.2f}", [info.duration_seconds for info in infos]),
            ("frames", "{:.0f}", [info.num_frames for info in infos]),
            ("frames a second", "{:.2f}", [info.frames_per_second for info in infos]),
            ("width", "{:.0f}", [info.width for info in infos]),
            ("height", "{:.0f}", [info.height for info in infos]),
        ):
            values.sort()
            table.add_row(name, *(form.format(value) for value in (values[0], values[len(values) // 2], values[-1])))
        output.print(table)
        codecs = Counter(info.codec for info in infos)
        output.print("codecs: " + ", ".join(f"{name} {count}" for name, count in codecs.most_common()), highlight=False)
    classes = report.classes()
    if set(classes) != {None}:
        table = Table("class", "good", "damaged", title=f"{len(classes)} classes", show_edge=False)
        for label, (good, bad) in classes.items():
            table.add_row(escape(str(label)), str(good), f"[red]{bad}[/red]" if bad else "0")
        output.print(table)
    for notice in report.notices:
        output.print(f"[yellow]notice:[/yellow] {escape(notice)}", highlight=False, soft_wrap=True)
    for what, files in report.file_notices().items():
        path, detail = files[0]
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        output.print(
            f"[yellow]{escape(what)}:[/yellow] {escape(f'{path}: {detail}{more}')}", highlight=False, soft_wrap=True
        )
    for group in report.duplicates:
        output.print(f"[yellow]same content:[/yellow] {escape(' = '.join(group))}", highlight=False, soft_wrap=True)
    if report.ignored:
        output.print(
            f"ignored: {plural(len(report.ignored), 'other file')}, such as {escape(report.ignored[0])}",
            highlight=False,
            soft_wrap=True,
        )
    for file in report.damaged:
        output.print(
            f"[red]damaged:[/red] {escape(file.sample.path)}: {escape(file.problem)}", highlight=False, soft_wrap=True
        )
