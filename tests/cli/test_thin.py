"""Every command is short: it parses, calls one public function for each thing it does, and prints."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import evl
from evl.api.settings import place_of
from evl.bench import run_bench
from evl.cli.common import as_options
from evl.cli.main import COMMANDS, _options_of
from evl.config import RunConfig
from evl.demo.run import run_demo

CLI = Path(evl.__file__).parent / "cli"
# command → the public functions that it calls: several where an option asks for something else
CALLS = {
    "demo": {"run_demo"},
    "check": {"check"},
    "prepare": {"prepare"},
    "extract": {"estimate_extraction", "extract", "verify_store"},
    "train": {"estimate_training", "few_shot", "train"},
    "sweep": {"sweep"},
    "evaluate": {"evaluate", "evaluate_timelines"},
    "predict": {"predict"},
    "timeline": {"timelines"},
    "watch": {"watch"},
    "embed": {"embed_videos"},
    "export": {"export"},
    "import-release": {"import_release"},
    "backbones": {"list_backbones"},
    "bench": {"run_bench"},
}
FUNCTIONS = {"run_bench": run_bench, "run_demo": run_demo}  # public ones that are not evl's own
HELPERS = {"open_store", "read_manifest"}  # they make an argument of such a call
# option → argument of the function, where they are named otherwise
ARGUMENTS = {
    "batch": "batch_size", "clips": "num_clips", "crops": "num_crops", "run": "model", "workers": "num_workers",
    "features": "data", "wait": "wait_seconds", "wait_limit": "wait_seconds", "verify": "store",
    "zero_shot": "class_names", "earlier": "scores",
}  # fmt: skip
# what is no argument: of printing and exit codes, a function of its own (estimate), a method (neighbors)
ELSEWHERE = {"timeline", "context", "json", "top", "allow_damaged", "estimate", "neighbors", "stats"}


def called(module):
    """Names of the public functions that a command's file imports from their homes and calls."""
    homes = {**evl._HOMES, "run_bench": "evl.bench", "run_demo": "evl.demo.run"}
    nodes = list(ast.walk(ast.parse(Path(module.__file__).read_text())))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
        if homes.get(alias.name) == node.module
    }  # fmt: skip
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return (imported & calls) - HELPERS


def test_each_calls_public_functions():
    assert {module.NAME: called(module) for module in COMMANDS} == CALLS


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.NAME)
def test_what_an_option_does_an_argument_does_too(module):
    names = CALLS[module.NAME]
    signatures = [inspect.signature(FUNCTIONS.get(name) or getattr(evl, name)).parameters for name in names]
    known = {name for parameters in signatures for name in parameters}
    if names & {"train", "sweep", "extract"}:  # which take settings by name
        known |= {field for section in RunConfig().to_dict().values() for field in section}
        known |= set(inspect.signature(evl.train).parameters)
    if "sizes" in known:  # those of evl.load
        known |= set(inspect.signature(evl.load).parameters)
    if module.NAME in ("evaluate", "predict"):  # --zero-shot makes the model
        known |= set(inspect.signature(evl.zero_shot).parameters)
    if module.NAME == "embed":  # an encoder stands in the place of a model, files in that of data
        known |= {"backbone", "paths"}
    if module.NAME == "bench":  # the document that it prints
        known |= {"out"}
    options = set(inspect.signature(module.command).parameters) - ELSEWHERE
    assert {option for option in options if ARGUMENTS.get(option, option) not in known} == set()


def test_files_are_short():
    """ruff holds all functions of evl to a complexity of 12 (pyproject.toml)."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in CLI.glob("*.py")}
    assert len(lengths) > len(CALLS)
    assert {name: count for name, count in lengths.items() if count > 120} == {}


@pytest.mark.parametrize(
    ("command", "text", "wanted"),
    [
        ("train", "choose another `out`", "choose another --out"),
        ("train", "give `resume=True` and `data.root=NEW`", "give --resume and --set data.root=NEW"),
        ("train", "give `layout=classes`", "give --set data.layout=classes"),
        ("check", "give `layout=classes`", "give --layout classes"),
        ("evaluate", "leave out `num_clips`, `root`", "leave out --clips, --root"),
        ("sweep", "leave out `grid`", "leave out --set"),
        ("export", "`out=a b`", "--out 'a b'"),
        ("predict", "`nothing_of_it` stays", "`nothing_of_it` stays"),
    ],
)
def test_an_error_names_the_options_of_its_command(command, text, wanted):
    assert as_options(text, _options_of(command)) == wanted


def test_errors_name_arguments_that_there_are():
    """In backquotes, and without the dashes of a command's options."""
    functions = [getattr(evl, name) for name in evl.__all__ if inspect.isfunction(getattr(evl, name))]
    known = {name for function in functions for name in inspect.signature(function).parameters}
    for path in Path(evl.__file__).parent.rglob("*.py"):
        if path.is_relative_to(CLI):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        skipped = [node.value for node in nodes if isinstance(node, ast.Expr)]  # docstrings
        skipped += [part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values]
        texts = {node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)} - set(skipped)
        for text in map(ast.unparse, texts):
            if not re.search(r"\b(evl (check|train)|hf download) ", text):  # whole commands
                assert not re.search(r"(?<![\w-])--(?!revision)[a-z]", text), (path, text)  # which is of hf
            for name in re.findall(r"(?<!`)`([a-z_.]+)(?:=[^`]*)?`(?!`)", text):
                assert name in known or place_of(name), (path, name)
