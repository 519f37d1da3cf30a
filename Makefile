# make demo: a whole sweep on made-up faces. make fast: the tests to run while you work. make test: style, types and all
# tests. make coverage: what no test runs. make slow: sweeps with faults. make gpu: what only a GPU can tell, on a machine
# that has one. make mutate: do the tests of the modules that decide notice when these are wrong? All make .venv first.
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
FAST := not ray and not system and not whole and not slow and not gpu
REST := (ray or system or whole) and not slow and not gpu
unexport PYTHONDONTWRITEBYTECODE  # tests start many processes: what Python has compiled is kept

.PHONY: venv demo fast test coverage slow gpu mutate clean

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed, and none was found; make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python examples/demo/demo.py

fast: venv
	$(BIN)/pytest --numprocesses 2 --dist worksteal --hypothesis-profile fast \
		-m "$(FAST)"

test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal -m "$(FAST)"
	$(BIN)/coverage combine --quiet
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "$(REST)"
	@echo "Of lines and branches the fast tests run $$($(BIN)/coverage report --format=total) %; all tests: make coverage"

# Counting takes half the time more, so `make test` counts in its fast tests alone. A process that is killed is
# not counted.
coverage: venv
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

slow: venv
	$(BIN)/pytest -m slow --numprocesses 2 --dist worksteal
	$(BIN)/python benchmarks/faults.py --kills 3

gpu: venv
	$(BIN)/pytest -m gpu tests/gpu

mutate: venv
	$(BIN)/python benchmarks/mutate.py

# Of runs/ only what `make demo` made: all else there is somebody's.
clean:
	rm -rf .venv *.egg-info build runs/demo examples/demo/data .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
