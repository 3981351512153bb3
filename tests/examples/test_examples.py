"""The programs in examples/ run, on small videos."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pytorch_loop(videos, capsys):
    share = load("pytorch_loop").main(str(videos), epochs=1)
    assert 0 <= share <= 1
    assert "of 2 validation videos are right" in capsys.readouterr().out


def test_features_into_sklearn(videos):
    pytest.importorskip("sklearn")
    assert load("features_into_sklearn").main(str(videos)) > 0.9  # bright and dark
