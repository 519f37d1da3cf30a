# make demo: a whole sweep on drawn faces. make fast: the tests to run while you work. make lint: style. make types: mypy.
# make test: style, types and all tests. make slow: sweeps with faults. make gpu: the tests that need a GPU. make mutate: do the
# tests of the modules that decide detect mutations of these? make docs: the documentation site. make wheel: wheel and sdist in
# dist/, checked as an index would. All of these create .venv first. make clean: deletes what these made, and no run of yours.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # tests start many processes: keep Python's compiled files

.PHONY: venv demo fast lint types test slow gpu mutate docs wheel clean

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed, but none was found; run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python examples/demo/demo.py

fast: venv
	$(BIN)/pytest --numprocesses 2 --dist worksteal --hypothesis-profile fast \
		-m "not ray and not system and not whole and not slow and not gpu"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest --numprocesses 2 --dist worksteal

slow: venv
	$(BIN)/pytest -m slow --numprocesses 2 --dist worksteal
	$(BIN)/python benchmarks/faults.py --kills 3

gpu: venv
	$(BIN)/pytest -m gpu tests/gpu

mutate: venv
	$(BIN)/python benchmarks/mutate.py

# The documentation site, from docs/ into build/docs; a link that leads nowhere within it is an error.
docs: venv
	$(BIN)/python docs/make_reference.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html; links to elsewhere are in build/docs/external-links.txt, and were not fetched"

wheel: venv
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

# Of runs/, delete only what `make demo` made: the rest belongs to the user.
clean:
	rm -rf .venv *.egg-info build dist runs/demo examples/demo/data .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
