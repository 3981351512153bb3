# make demo: the main job, end to end, on a fresh machine.   make test: the whole default suite.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

# else each process of the tests would compile evl and the tests again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint format clean

demo: $(READY)
	$(VENV)/bin/evl demo

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal  # three, as some tests wait

test-all: $(READY)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,examples]"
	$(VENV)/bin/python -m pytest -m "not gpu and not network"

lint: $(READY)
	$(VENV)/bin/ruff check .

format: $(READY)
	$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
