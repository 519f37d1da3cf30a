# make demo: a whole sweep on drawn faces. make fast: the tests to run while you work. make lint: style. make types: mypy.
# make test: style, types and all tests. make coverage: what no test runs. make slow: sweeps with faults. make gpu: the tests
# that need a GPU. make mutate: do the tests of the modules that decide detect mutations of these? make docs: the documentation
# site. make wheel: wheel and sdist in dist/, checked as an index would. All of these create .venv first. make clean: deletes
# what these made, and no run of yours.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema vendor.github
FAST := not ray and not system and not whole and not slow and not gpu
REST := (ray or system or whole) and not slow and not gpu
MEMORY = $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR > 1 && $$1 > 4000000 {print "/dev/shm"}')
unexport PYTHONDONTWRITEBYTECODE  # tests start many processes: keep Python's compiled files

.PHONY: venv demo fast lint types test coverage slow gpu mutate docs wheel clean

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed, but none was found; run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python examples/demo/demo.py

# In memory where there is room: the tests write a gigabyte in 56,000 files and folders.
fast: venv
	PYTEST_DEBUG_TEMPROOT=$(MEMORY) $(BIN)/pytest --numprocesses 2 --dist worksteal --hypothesis-profile fast \
		--override-ini tmp_path_retention_policy=failed -m "$(FAST)"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(SCHEMA)-workflows .github/workflows/*.yml
	$(SCHEMA)-actions .github/actions/*/action.yml
	$(SCHEMA)-issue-forms .github/ISSUE_TEMPLATE/*.yml

types: venv
	$(BIN)/mypy

test: lint types
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal -m "$(FAST)"
	$(BIN)/coverage combine --quiet
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "$(REST)"
	@echo "the fast tests cover $$($(BIN)/coverage report --format=total) % of lines and branches; all tests: make coverage"

# Measuring coverage takes half as long again, so `make test` measures its fast tests only. A process that is killed is
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
	rm -rf .venv *.egg-info build dist runs/demo examples/demo/data .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
