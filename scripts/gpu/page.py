"""The lines of a round's results.jsonl → one page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

CLIPS_OF_KINETICS = 50 * 240_000  # clips of 50 epochs of Kinetics-400, about 240,000 training videos
WAITING = "waiting"


def rows_of(lines: Sequence[dict], part: str) -> list[dict]:
    return [line["row"] for line in lines if line.get("part") == part and "row" in line]


def page_of(lines: Sequence[dict]) -> str:
    head = next((line["round"] for line in lines if "round" in line), {"parts": []})
    statuses = {line["part"]: line for line in lines if "status" in line}
    parts = head["parts"]
    good = sum(statuses.get(part, {}).get("status") == "ok" for part in parts)
    device = next((row["value"] for row in rows_of(lines, "machine") if row["what"] == "device"), "device unknown")
    text = [f"# A round: {device}", ""]
    text += ["**Dry: everything was tiny, and no number means anything.**", ""] if head.get("dry") else []
    text += [f"Began {head.get('began', '?')}. {good} of {len(parts)} parts ok."]
    text += [f"**Stopped {line['stopped']}.**" for line in lines if "stopped" in line]
    if not head.get("dry"):
        text += ["", "## Goals", "", *table(goals(lines))]
    text += ["", "## Parts", ""]
    text += table([{"part": part, **_status(statuses.get(part))} for part in parts])
    for part in parts:
        if rows := sorted(rows_of(lines, part), key=lambda row: row.get("ok", True)):  # what is wrong first
            text += ["", f"## {part}", "", *table([_shown(row) for row in rows])]
    return "\n".join(text) + "\n"


def _status(line: dict | None) -> dict:
    if line is None:
        return {"status": WAITING, "seconds": None, "reason": ""}
    return {name: line.get(name) for name in ("status", "seconds", "reason")}


def _shown(row: dict) -> dict:
    """Without the document that is there for programs; what is not ok first seen."""
    shown = {name: value for name, value in row.items() if name not in ("detail", "ok")}
    return shown | ({"ok": "yes" if row["ok"] else "**NO**"} if "ok" in row else {})


def goals(lines: Sequence[dict]) -> list[dict]:
    """What the project wants of a card, and what was measured."""
    bench = [line["row"] for line in lines if "row" in line and line["part"].startswith("bench ")]
    images = rows_of(lines, "images")

    def best(rows: Sequence[dict], begins: str, key: str, of=max) -> float | None:
        found = [row[key] for row in rows if row["what"].startswith(begins) and row.get(key) is not None]
        return of(found) if found else None

    wanted = []
    for size in ("b16-8f", "l14-8f", "l14-336-32f"):
        share = best(bench, f"{size},", "decoder_to_encoder", min)
        wanted.append((f"{size}: decoder at most 10 % of the encoder", share, 0.10, "at most", "%"))
        share = best(bench, f"{size},", "step_share_of_peak")
        wanted.append((f"{size}: a step at least 45 % of the measured peak", share, 0.45, "at least", "%"))
    rate = best(bench, "b16-8f,", "clips_a_second")
    hours = None if rate is None else CLIPS_OF_KINETICS / rate / 3600
    wanted.append(("50 epochs of Kinetics-400, b16-8f, within 2 hours of compute", hours, 2.0, "at most", "h"))
    for size, public in (("B/16", 5059), ("L/14", 1191)):
        rate = best(images, f"{size}, encoder", "images_a_second")
        wanted.append((f"{size}: above timm's best public rate, images a second", rate, public, "at least", ""))
    return [
        {
            "goal": goal,
            "measured, the best": None if value is None else _with_unit(value, unit),
            "wanted": f"{sense} {_with_unit(bound, unit)}",
            "met": WAITING if value is None
            else "yes" if (value <= bound if sense == "at most" else value >= bound) else "**NO**",
        }
        for goal, value, bound, sense, unit in wanted
    ]  # fmt: skip


def _with_unit(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{_cell(value)} {unit}".strip()


def table(rows: Sequence[dict]) -> list[str]:
    """Markdown; the columns are all keys, in the order in which they first come."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).split()).replace("|", "\\|")


def status_line(line: dict) -> str:
    """For the terminal."""
    reason = f"  {line['reason']}" if line["reason"] else ""
    return f"{line['status']:<8} {line['seconds']:>6.1f} s  {line['part']}{reason}"
