# A user's two commands: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

.PHONY: demo test test-slow lint docs oldest oldest-constraints bench bench-ccd clean

$(STAMP): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

# A made-up sky on 127.0.0.1, a template of it, and what the template says about the known stars.
demo: $(STAMP)
	$(BIN)/python scripts/run_demo.py

test: lint
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# The documentation site, from docs/ into build/docs; a warning is an error.
docs: $(STAMP)
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build --fail-on-warning --keep-going --jobs auto -q docs build/docs

# The oldest allowed dependencies, in a fresh .venv: `make oldest test PYTHON=python3.10`.
oldest:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --constraint tests/oldest-constraints.txt --editable '.[test]'
	touch $(STAMP)

# The lower bounds of setup.py, and what they depend on as of the day of the youngest lower bound.
oldest-constraints: $(STAMP)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python-version 3.10 --extra test --no-annotate \
		--exclude-newer 2025-03-01 --exclude-newer-package luigi=2026-06-01 --output-file tests/oldest-constraints.txt setup.py

bench: $(STAMP)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.further_ffis --pictures
	$(BIN)/python -m benchmarks.scheduler
	$(BIN)/python -m benchmarks.difference

bench-ccd: $(STAMP)
	$(BIN)/python -m benchmarks.ccd

clean:
	rm -rf .venv demo_sky build *.egg-info
