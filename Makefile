# The everyday commands; .ci/run does the same in an environment of its own.
PYTHON ?= python

.PHONY: install check test format serve coverage

install:  ## The package, in place, with all that its checks need
	$(PYTHON) -m pip install -e ".[dev]" -c constraints.txt

check:  ## Lint, format and types; seconds
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

test:  ## Everything, with a real client and a real browser
	$(PYTHON) -m pytest

coverage:  ## The same, and which lines no test runs; fails below the floor in pyproject.toml
	$(PYTHON) -m pytest --cov --cov-report=term:skip-covered

format:  ## Rewrite what `make check` would complain about
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

serve:  ## The app at http://127.0.0.1:7860
	$(PYTHON) app.py
