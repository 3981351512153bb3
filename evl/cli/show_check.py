"""What a check of a collection prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import typer
from rich.table import Table

from evl.cli.common import output, print_json, say, tell
from evl.errors import plural
from evl.runtime.text import cell


def show_check(report, manifest: Path | None, index: Path | None, as_json: bool) -> None:
    """``manifest``, ``index``: what was written. Exit code 1 where videos are damaged."""
    if manifest is not None:
        tell(f"clean manifest of {plural(len(report.good), 'video')}: {manifest}")
    if index is not None:
        tell(f"index of {plural(len(report.whole_files), 'file')}: {index}")
    if as_json:
        print_json(_document(report))
    else:
        _print(report)
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


def _print(report) -> None:
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
        say("codecs: " + ", ".join(f"{name} {count}" for name, count in codecs.most_common()))
    classes = report.classes()
    if set(classes) != {None}:
        table = Table("class", "good", "damaged", title=f"{len(classes)} classes", show_edge=False)
        for label, (good, bad) in classes.items():
            table.add_row(cell(str(label)), str(good), f"[red]{bad}[/red]" if bad else "0")
        output.print(table)
    for notice in report.notices:
        say(notice, label="notice", color="yellow")
    for what, files in report.file_notices().items():
        path, detail = files[0]
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        say(f"{path}: {detail}{more}", label=what, color="yellow")
    for group in report.duplicates:
        say(" = ".join(group), label="same content", color="yellow")
    if report.ignored:
        say(f"ignored: {plural(len(report.ignored), 'other file')}, such as {report.ignored[0]}")
    for file in report.damaged:
        say(f"{file.sample.path}: {file.problem}", label="damaged")
