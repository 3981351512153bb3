"""The page: its sections, from the answer to how it was measured."""

from __future__ import annotations

import shlex
from pathlib import Path

from evl._version import __version__
from evl.demo.report import figures, words
from evl.demo.report.examples import examples, top_scores
from evl.demo.report.html import Html, element, join
from evl.demo.results import EVL, NO_TEMPORAL, ROWS, TASKS, VARIANTS, ZERO_SHOT, DemoResult, VariantResult
from evl.runtime.files import write_atomically

NOUNS = {"motion": "which motion", "object": "which kind of object"}
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is ever fetched, or run
LICENSES = (
    ("Twemoji", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", "test videos, shown above"),
    ("Noto Emoji", "Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "training videos"),
    ("Fluent Emoji", "MIT", "https://opensource.org/license/mit", "training videos"),
)


def write_report(path: str | Path, result: DemoResult) -> None:
    """``report.html``: self-contained, needs no script and no network. Raises SaveError where writing is refused."""
    with write_atomically(path, text=True) as file:
        file.write(report(result))


def report(result: DemoResult) -> str:
    """The page as text."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=CONTENT_POLICY),
        element("link", rel="icon", href="data:,"),
        element("title", "evl demo: can a frozen image model tell motions apart?"),
        element("style", Html(style)),
    )
    first, second = words.headline(result)
    header = element(
        "header",
        element("p", f"evl {__version__} · report of a demo run", class_="eyebrow"),
        element("h1", "Can a frozen image model tell motions apart?"),
        element("p", first, " ", second, class_="lead"),
    )
    main = element(
        "main",
        _scores(result),
        _section("What it looked at", examples(result)) if result.examples else None,
        _confusions(result),
        _curves(result),
        _next(result),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}<body>{join(header, main, _measured(result))}</body></html>\n'


def _section(title: str, *content, class_: str | None = None) -> Html:
    return element("section", element("h2", title), *content, class_=class_)


def _scores(result: DemoResult) -> Html:
    by_task = {task: words.scores_of(result, task, ROWS) for task in TASKS}
    rows = []
    for number, variant in enumerate(ROWS):
        outcomes = [one for one in result.outcomes if one.variant == variant]
        if not outcomes:
            continue
        cells = []
        for task in TASKS:
            score = by_task[task].get(variant)
            content = "–" if score is None else (
                element("span", score.percent, class_="value"),
                element("span", score.interval, class_="interval"),
                figures.bar(score, result.chance.get(task), f"v{number}"),
            )  # fmt: skip
            cells.append(element("td", content, class_="score", data_label=task, role="cell"))
        seconds = sum(one.seconds for one in outcomes)
        cells += [
            element("td", f"{outcomes[0].trainable:,}", class_="count", data_label="trainable parameters", role="cell"),
            element("td", words.duration(seconds), class_="count", data_label="training time", role="cell"),
        ]
        rows.append(element("tr", element("th", variant, scope="row", role="rowheader"), cells, role="row"))
    heads = ["variant", *(NOUNS[task] for task in TASKS), "trainable parameters", "time"]
    table = element(
        "table",
        element(
            "thead",
            element(
                "tr",
                [
                    element("th", name, scope="col", role="columnheader", class_="count" if i > len(TASKS) else None)
                    for i, name in enumerate(heads)
                ],
                role="row",
            ),
            role="rowgroup",
        ),
        element("tbody", rows, role="rowgroup"),
        class_="results",
        role="table",
    )
    num_seeds = max((len(score.each) for scores in by_task.values() for score in scores.values()), default=1)
    interval = (
        f"the 95 % t-interval over {num_seeds} seeds, each of which is a dot and had videos and a training of its own"
        if num_seeds > 1
        else "the 95 % interval over videos (Wilson’s; one training, so luck of the seed is not in it)"
    )
    note = (
        f"Percent of test videos whose best-scored class is the right one. Whiskers: {interval}. Dashed: chance. Two "
        "variants are told apart, or one is clearly better, where their intervals do not touch. Time: training and "
        f"judging, {'all seeds and ' if num_seeds > 1 else ''}both tasks together, on features made once for all."
    )
    return _section(
        "What was compared",
        element(
            "p",
            "All read the same videos through a frozen image encoder, “untrained backbone” through the same network "
            "without its training. To name the motion takes several frames; to name the object, one.",
            " Zero-shot is not trained: it compares what the encoder says of the frames with what its text tower says "
            "of the class names."
            if result.of(ZERO_SHOT, "object")
            else None,
        ),
        table,
        element("p", note, class_="note"),
        _worth(result),
    )


def _worth(result: DemoResult) -> Html | None:
    rows = []
    for part, other in words.PARTS:
        found = [words.difference(result, other, task) for task in TASKS]
        if any(found):
            cells = [element("td", one and (one[0], element("small", one[1])), class_=one and one[2]) for one in found]
            rows.append(element("tr", element("th", part, scope="row"), cells))
    if not rows:
        return None
    heads = [element("th", name, scope="col") for name in ("points of accuracy", *TASKS)]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows), class_="worth")
    return join(element("h3", "What each part adds"), table)


def _confusions(result: DemoResult) -> Html | None:
    parts = []
    for task, variants in (("motion", (EVL, NO_TEMPORAL)), ("object", (EVL,))):
        matrices, class_names = [], None
        for variant in variants:
            outcomes = result.of(variant, task)
            if not outcomes:
                continue
            counts = sum(one.evaluation.metrics.confusion for one in outcomes)
            names = outcomes[0].evaluation.class_names
            note = f"{100 * counts.trace() / max(1, counts.sum()):.1f} % of {counts.sum():,}"
            note += f" ({len(outcomes)} seeds together). " if len(outcomes) > 1 else ". "
            note += words.confused(names, counts)
            matrices.append(figures.confusion(variant, note, names, counts, named=class_names is None))
            class_names = names
        if matrices:
            parts += [
                element("h3", NOUNS[task].capitalize()),
                element("div", matrices, class_="matrices"),
                figures.key(class_names),
            ]
    if not parts:
        return None
    about = (
        "Videos of each true class (down) by the class they were given (across, by the numbers of the rows). Blue is "
        "correct, orange is not; a full colour means all videos of that class."
    )
    return _section("What is told apart, and what is not", element("p", about), parts)


def _curves(result: DemoResult) -> Html | None:
    drawn, used = [], []
    for task in TASKS:
        lines: list[tuple[str, VariantResult]] = [
            (f"v{VARIANTS.index(one.variant)}", one)
            for variant in reversed(VARIANTS)  # EVL on top
            for one in result.of(variant, task)
            if one.curve
        ]
        if not lines:
            continue
        used += [one.variant for _, one in lines]
        # over the share of the steps: the linear probe takes five times as many
        loss = [(kind, [(100 * step / one.curve[-1][0], loss) for step, loss, _ in one.curve]) for kind, one in lines]
        top1 = [(kind, [(100 * step / one.curve[-1][0], hits) for step, _, hits in one.curve]) for kind, one in lines]
        drawn += [
            figures.curves(f"{NOUNS[task].capitalize()}: training loss", loss),
            figures.curves(
                f"{NOUNS[task].capitalize()}: training accuracy in %", top1, top=100, chance=result.chance.get(task)
            ),
        ]
    if not drawn:
        return None
    return _section(
        "How they learned",
        element(
            "p",
            "On training videos, each over its own number of steps: what is learned there need not hold for the test "
            "videos of the table above.",
        ),
        figures.legend((f"v{i}", variant) for i, variant in enumerate(VARIANTS) if variant in used),
        element("div", drawn, class_="curve-pairs"),
    )  # fmt: skip


def _next(result: DemoResult) -> Html:
    run = next((one.folder for one in result.of(EVL, "motion") if one.folder is not None), None)
    prediction = result.prediction
    commands = [
        ("# your videos, each class in a folder of its own: is everything readable?", "evl check my-videos/"),
        (
            "# train on them, with a large image encoder; its weights are fetched once",
            "evl train --data my-videos/ --out runs/mine --backbone vit_base_patch16_clip_quickgelu_224.openai",
        ),
        ("# scores of what was held out, with their protocol", "evl evaluate runs/mine"),
        ("# any other video", "evl predict runs/mine some-video.mp4"),
    ]
    if run is not None:
        predict = f"evl predict {shlex.quote(str(run))} {shlex.quote(prediction.path)}"
        commands.insert(0, ("# the model of this run, on the video above", predict))
    lines = [
        join(element("span", comment, class_="comment"), "\n", command, "\n" if number < len(commands) else "")
        for number, (comment, command) in enumerate(commands, 1)
    ]
    name = element("code", Path(prediction.path).name)
    label = None if prediction.label is None else result.class_names[prediction.label]
    return join(
        _section(
            "One video, from its file",
            element("p", "Through the saved model, as ", element("code", "evl predict"), " does it: ", name),
            top_scores(prediction.scores, result.class_names, label),
            class_="single",
        ),
        _section(
            "On your own videos",
            element("pre", [join(line, "\n") for line in lines]),
            element(
                "p", "After ", element("code", "make demo"), " the command is ", element("code", ".venv/bin/evl"), "."
            ),
        ),
    )


def _measured(result: DemoResult) -> Html:
    protocols = [(task, result.of(EVL, task)[0].evaluation.protocol) for task in TASKS if result.of(EVL, task)]
    files = [(one.variant + ", " + one.task, str(one.folder)) for one in result.outcomes if one.folder is not None]
    licenses = [
        element("li", name, " (", element("a", license, href=address), "): ", use)
        for name, license, address, use in LICENSES
    ]
    return element(
        "footer",
        _section(
            "How it was measured",
            _facts([(f"protocol, {task}", text) for task, text in protocols]),
            element(
                "div",
                element("div", element("h3", "Settings"), _facts(result.settings.items())) if result.settings else None,
                element(
                    "div",
                    element("h3", "Time"),
                    _facts((part, words.duration(seconds)) for part, seconds in result.seconds.items()),
                )
                if result.seconds
                else None,
                class_="two",
            ),
            element("h3", "Files"),
            _facts([("everything of this run", str(result.folder)), *files]),
            element("h3", "Pictures"),
            element("p", "What moves in the videos are drawings of these sets, scaled, turned, on made backgrounds:"),
            element("ul", licenses),
        ),
    )  # fmt: skip


def _facts(pairs) -> Html:
    return element("dl", [(element("dt", name), element("dd", value)) for name, value in pairs])
