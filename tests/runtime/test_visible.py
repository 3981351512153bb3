"""Names that would steer a terminal are shown as codes, wherever they are shown."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import evl
from evl.cli import common
from evl.evaluation import Evaluation
from evl.models.card import ModelCard
from evl.runtime import progress
from evl.runtime.text import STEERING, visible
from evl.saving.page import readme
from tests.helpers import metrics_of

HOSTILE = [
    "\x1b[31mred", "\x1b]8;;http://evil\x1b\\click", "\x9b2J", "a\rb", "bell\x07", "back\x08", "\x7f", "\x00", "a\x0bb",
    "abc\u202efdp", "\u2066x", "line\u2028break", "two\nlines", "tab\t", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_codes_for_what_steers_and_nothing_else(name):
    assert not STEERING.search(visible(name))
    assert visible(name).encode().decode("unicode_escape", "surrogatepass") == name


@pytest.mark.parametrize("name", ["öffnen", "👩\u200d🔬", "שלום", "दरवाज़ा", "$_$", "[bold]", "\\x1b", "a b"])
def test_other_names_are_shown_as_they_are(name):
    assert visible(name) == name


@pytest.fixture
def terminal(monkeypatch):
    """A color terminal for results and messages; its text so far."""
    console = Console(force_terminal=True, color_system=None, width=200, record=True)
    monkeypatch.setattr(common, "output", console)
    monkeypatch.setattr(common, "console", console)
    monkeypatch.setattr(progress, "console", console)
    return lambda: console.export_text(clear=False)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_tables_lines_and_log(terminal, name, monkeypatch):
    monkeypatch.setattr(logging.getLogger("evl"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("evl"), "propagate", False)
    progress.start_logging()
    common.output.print(Evaluation(metrics_of(np.eye(2, dtype=int)[::-1]), (), {}, "p", (name, "b")).table())
    common.say(f"one {name}", label=name, to=common.output)
    common.error(ValueError(f"three {name}".replace("\n", " ")))
    logging.getLogger("evl").warning("four %s", name)
    assert not STEERING.search(terminal().replace("\n", ""))
    assert terminal().count(visible(name)) >= (4 if name == "two\nlines" else 5)


def test_json_stays_json(capsys):
    common.print_json({"names": HOSTILE})
    out = capsys.readouterr().out
    assert json.loads(out) == {"names": HOSTILE}
    assert not STEERING.search(out.replace("\n", ""))


def test_the_page_of_a_model(finished_run):
    card = evl.load(finished_run).card
    hostile = replace(card, class_names=tuple(HOSTILE), data=HOSTILE[0], scores={"top1": 1.0, "protocol": HOSTILE[1]})
    assert isinstance(hostile, ModelCard)
    page = str(readme(hostile))
    assert not STEERING.search(page.replace("\n", ""))
    assert r"\x1b\[31mred" in page
